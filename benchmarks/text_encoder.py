"""How good are features of plots that stage 0 learns without labels, for a few settings of `TextEncoder`?

    python benchmarks/text_encoder.py --root data/mmimdb_mini --epochs 15

A bag of words, the untrained encoder, then the encoder pretrained as stage 0 does it in several settings; each time
logistic regression on the features (of an encoder: frozen, pooled, of all depths), trained on all training films, with
the threshold of each genre tuned on the validation split. One thread, one seed.
"""

import argparse
import time
import warnings
from typing import Any

import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from lightning_mmnas import MMIMDBDataModule, TextEncoder
from lightning_mmnas.data.spec import Split
from lightning_mmnas.fusion.readout import mean_max_pool
from lightning_mmnas.modules.metrics import build_tuned_metrics, tune_thresholds
from lightning_mmnas.objectives.fusion_objective import projection_head
from lightning_mmnas.objectives.losses import nt_xent
from lightning_mmnas.objectives.training import build_optimizer
from lightning_mmnas.views import TextViews

SPLITS: tuple[Split, ...] = ("train", "val", "test")

# What differs from temperature 0.1, peak learning rate 5e-3 and the encoder's and the views' defaults.
SETTINGS: list[dict[str, Any]] = [
    {},
    {"lr": 2e-3, "temperature": 0.2},
    {"lr": 1e-2},
    {"encoder": {"blocks": 0}},
    {"encoder": {"width": 128}},
    {"views": {"crop": 0.3}},
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="MM-IMDB, or films in its raw layout")
    parser.add_argument("--epochs", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = MMIMDBDataModule(options.root, modalities=["text"], text_length=96)
    data.setup("fit")
    data.setup("test")
    print("| setting | weighted F1 | s |\n|-|-|-|")
    print(f"| TF-IDF, LSA of 300 | {score_words(data):.3f} | |", flush=True)
    print(f"| untrained | {score(TextEncoder(data.modalities['text']), data):.3f} | |", flush=True)
    for setting in SETTINGS:
        torch.manual_seed(0)
        start = time.perf_counter()
        encoder = TextEncoder(data.modalities["text"], **setting.get("encoder", {}))
        pretrain(encoder, data, setting, options.epochs)
        seconds = time.perf_counter() - start
        print(f"| {setting or 'default'} | {score(encoder, data):.3f} | {seconds:.0f} |", flush=True)


def pretrain(encoder: TextEncoder, data: MMIMDBDataModule, setting: dict[str, Any], epochs: int, b: int = 256) -> None:
    ids = data.tensors("train")["text"]
    views = TextViews(**setting.get("views", {}))
    views.bind(data.modalities["text"])
    head = projection_head(2 * encoder.feature_shapes[-1][0], 128, 64)
    objective = nt_xent(setting.get("temperature", 0.1))
    groups = [{"params": [*encoder.parameters(), *head.parameters()], "lr": setting.get("lr", 5e-3)}]
    optimizer, schedule = build_optimizer(groups, 1e-4, "one_cycle", epochs * (len(ids) // b))
    encoder.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(ids))[: len(ids) // b * b].view(-1, b):
            x = ids[batch]
            z0, z1 = head(mean_max_pool(encoder(torch.cat([views(x), views(x)]))[-1])).chunk(2)
            optimizer.zero_grad(set_to_none=True)
            objective(z0, z1).backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def score(encoder: TextEncoder, data: MMIMDBDataModule) -> float:
    encoder.eval()
    features, labels = {}, {}
    for split in SPLITS:
        tensors = data.tensors(split)
        labels[split] = tensors["label"]
        features[split] = torch.cat(
            [torch.cat([mean_max_pool(f) for f in encoder(x)], dim=1) for x in tensors["text"].split(512)]
        )
    return probe(features, labels)


def score_words(data: MMIMDBDataModule) -> float:
    """A bag of words without any network, from the whole plots."""
    sources = {split: data.source(split) for split in SPLITS}
    texts = {split: source.columns["text"].texts for split, source in sources.items()}
    words = make_pipeline(
        TfidfVectorizer(sublinear_tf=True, min_df=2, stop_words="english"), TruncatedSVD(300, random_state=0)
    ).fit(texts["train"])
    features = {split: torch.from_numpy(words.transform(listed)) for split, listed in texts.items()}
    return probe(features, {split: source.labels for split, source in sources.items()}, regularisation=1.0)


def probe(features: dict[str, Tensor], labels: dict[str, Tensor], regularisation: float = 0.01) -> float:
    """Weighted F1 on the test films of logistic regression, thresholds tuned on the validation films."""
    classifier = LogisticRegression(C=regularisation, max_iter=300)
    model = make_pipeline(StandardScaler(), OneVsRestClassifier(classifier))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Label not .* is present")
        model.fit(features["train"].numpy(), labels["train"].numpy())
    seen, unseen = (torch.from_numpy(model.predict_proba(features[split].numpy())) for split in ("val", "test"))
    decisions = (unseen > tune_thresholds(seen, labels["val"])).float()
    return float(build_tuned_metrics(labels["test"].shape[1])(decisions, labels["test"])["f1_weighted_tuned"])


if __name__ == "__main__":
    main()
