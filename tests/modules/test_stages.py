"""The four stages: what they learn, what they leave alone, what they refuse."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import seed_everything
from sklearn.metrics import f1_score
from torch import Tensor, nn

from lightning_mmnas import (
    ArchitectureAlternation,
    EncoderPretraining,
    FineTuning,
    FusionPretraining,
    FusionSearch,
    FusionSpace,
    Genotype,
    TensorDataModule,
)
from lightning_mmnas.errors import CheckpointError, ConfigError, DataError, GenotypeError
from lightning_mmnas.fusion.late_fusion import LateFusion
from lightning_mmnas.fusion.readout import mean_max_pool
from lightning_mmnas.modules.frozen import FrozenEncoders, build_encoders
from lightning_mmnas.modules.metrics import tune_thresholds
from lightning_mmnas.objectives.losses import nt_xent
from tests.modules.tiny import ENCODERS, data_of, modalities, same, split_of, state_of, trainer_of

SMALL: dict[str, Any] = {"channels": 4, "length": 2, "projection_hidden": 8, "projection_out": 4}
SPACE = FusionSpace(inputs=("left/0", "left/1", "right/0", "right/1"), channels=4, length=2)


def genotype(seed: int = 0) -> Genotype:
    return SPACE.sample(torch.Generator().manual_seed(seed))


@pytest.fixture
def encoder_checkpoint(tmp_path: Path) -> str:
    trainer = trainer_of(tmp_path)
    trainer.fit(EncoderPretraining(modalities(), ENCODERS, projection_hidden=8, projection_out=4), data_of())
    trainer.save_checkpoint(tmp_path / "encoders.ckpt")
    return str(tmp_path / "encoders.ckpt")


def test_encoder_loss_is_the_sum_over_modalities() -> None:
    seed_everything(0, verbose=False)
    module = EncoderPretraining(modalities(), ENCODERS).eval()
    batch = {name: value for name, value in split_of(8, 0).items() if name != "label"}
    torch.manual_seed(1)
    loss = module.loss(batch)
    torch.manual_seed(1)
    first, second = module.views(batch)
    expected = torch.zeros(())
    for name in ("left", "right"):
        z = [module.projectors[name](mean_max_pool(module.encoders[name](v[name])[-1])) for v in (first, second)]
        expected = expected + nt_xent(0.2)(z[0], z[1])
    torch.testing.assert_close(loss, expected)


def test_checkpoints_load_without_executing_anything(encoder_checkpoint: str) -> None:
    checkpoint = torch.load(encoder_checkpoint, weights_only=True)
    assert any(name.startswith("encoders.left.") for name in checkpoint["state_dict"])


def test_frozen_encoders_do_not_move(tmp_path: Path, encoder_checkpoint: str) -> None:
    search = FusionSearch(modalities(), ENCODERS, encoder_weights=encoder_checkpoint, **SMALL)
    before = state_of(search.encoders)
    weights = state_of(search.supernet)
    trainer_of(tmp_path, callbacks=[ArchitectureAlternation(lr=0.1)]).fit(search, data_of(architecture_fraction=0.5))
    assert same(before, state_of(search.encoders))
    assert not same(weights, state_of(search.supernet))
    search.train()
    assert not any(module.training for module in search.encoders.modules())
    assert not any(p.requires_grad for p in search.encoders.parameters())
    stored = torch.load(encoder_checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(stored[name], value) for name, value in before.items() if name in stored)


def test_features_computed_before_pass_through() -> None:
    encoders = FrozenEncoders(build_encoders(modalities(), ENCODERS))
    batch = {name: value for name, value in split_of(4, 0).items() if name != "label"}
    plain = encoders(batch)
    levels = {m: [plain[f"{m}/{level}"] for level in range(2)] for m in batch}
    computed = encoders(levels)
    assert plain.keys() == encoders.feature_shapes.keys()
    assert all(torch.equal(plain[name], computed[name]) for name in plain)


def test_search_moves_the_logits_only_after_warm_up(tmp_path: Path) -> None:
    seed_everything(0, verbose=False)
    search = FusionSearch(modalities(), ENCODERS, **SMALL)
    data = data_of(architecture_fraction=0.5)
    waiting = ArchitectureAlternation(lr=0.1, warmup_epochs=1)
    with (
        pytest.warns(UserWarning, match="nothing will be searched"),
        pytest.warns(UserWarning, match="without one architecture step"),
    ):
        trainer_of(tmp_path, callbacks=[waiting], max_epochs=2, max_steps=1).fit(search, data)
    assert all(not logits.any() for logits in search.architecture_parameters())
    trainer_of(tmp_path, callbacks=[ArchitectureAlternation(lr=0.1)]).fit(search, data)
    assert any(logits.any() for logits in search.architecture_parameters())


@pytest.mark.parametrize("pairing", ["tied", "independent"])
def test_supervised_search_reads_labels(tmp_path: Path, pairing: Any) -> None:
    search = FusionSearch(modalities(), ENCODERS, supervised=True, num_classes=2, pairing=pairing, **SMALL)
    with pytest.raises(ConfigError, match=r"set data.init_args.labels=true"):
        search.loss({"left": torch.randn(4, 3, 16), "right": torch.randn(4, 3, 16)})
    data = data_of(architecture_fraction=0.5, labels=True)
    trainer_of(tmp_path, callbacks=[ArchitectureAlternation(lr=0.1)]).fit(search, data)
    assert any(logits.any() for logits in search.architecture_parameters())
    with pytest.raises(ConfigError, match="no classes"):
        FusionSearch(modalities(), ENCODERS, supervised=True, **SMALL)


def test_cross_modal_term_adds_its_weight() -> None:
    batch = {name: value for name, value in split_of(8, 0).items() if name != "label"}
    losses = []
    for weight in (0.0, 1.0, 3.0):
        seed_everything(0, verbose=False)
        losses.append(FusionSearch(modalities(), ENCODERS, cross_modal_weight=weight, **SMALL).loss(batch))
    assert losses[1] > losses[0]
    torch.testing.assert_close(losses[2] - losses[0], 3 * (losses[1] - losses[0]))


def test_modality_means_come_from_the_data(tmp_path: Path) -> None:
    module = FusionPretraining(modalities(), ENCODERS, genotype=genotype())
    data = data_of()
    trainer_of(tmp_path, limit_train_batches=1).fit(module, data)
    means = data.modality_means()
    assert means["right"].abs().sum() > 0
    assert torch.equal(module.views.get_buffer("mean_right"), means["right"])


def test_hooks_of_a_subclass_that_does_not_call_ours(tmp_path: Path) -> None:
    class Pretraining(FusionPretraining):
        def setup(self, stage: str) -> None:
            """Something else."""

    module, data = Pretraining(modalities(), ENCODERS, genotype=genotype()), data_of()
    trainer_of(tmp_path, limit_train_batches=1).fit(module, data)
    assert torch.equal(module.views.get_buffer("mean_right"), data.modality_means()["right"])

    class Tuning(FineTuning):
        def on_train_start(self) -> None:
            """Something else."""

    tuning = Tuning(modalities(), ENCODERS, 2, "multiclass", genotype=genotype())
    trainer_of(tmp_path).fit(tuning, data_of(labels=True))
    assert tuning.mixture is not None
    assert bool(tuning.mixture.fitted)


def test_the_classifier_follows_a_rate_that_a_tuner_has_found() -> None:
    modes: dict[Any, int] = {"mixture": 1, "full": 10}
    for mode, factor in modes.items():
        for given in (None, 0.5):
            module = FineTuning(
                modalities(), ENCODERS, 2, "multiclass", genotype=genotype(), mode=mode, lr=0.1, head_lr=given
            )
            module.lr = 0.02
            assert module.head_lr == (given or factor * 0.02)
            module.head_lr = 0.3
            assert module.head_lr == 0.3


@pytest.mark.parametrize("mode", ["mixture", "full", "linear_probe"])
def test_fine_tuning_modes(tmp_path: Path, mode: Any) -> None:
    seed_everything(0, verbose=False)
    module = FineTuning(modalities(), ENCODERS, 2, "multiclass", genotype=genotype(), mode=mode, augment=False)
    network, classifier = state_of(module.network), state_of(module.classifier)
    weights = [parameter.detach().clone() for parameter in module.network.parameters()]
    trainer = trainer_of(tmp_path, max_epochs=30)
    trainer.fit(module, data_of(labels=True))
    assert same(network, state_of(module.network)) == (mode == "linear_probe")
    # Not only statistics of batch norms: every weight but those of a probe is trained.
    trained = [not torch.equal(a, b) for a, b in zip(weights, module.network.parameters(), strict=True)]
    assert trained == [mode != "linear_probe"] * len(weights)
    assert not same(classifier, state_of(module.classifier))
    found = trainer.test(module, data_of(labels=True), verbose=False)[0]
    assert found.keys() == {"test/accuracy", "test/f1_macro"}
    assert mode == "linear_probe" or found["test/accuracy"] > 0.8  # the class is the sign of one sensor
    predictions = trainer.predict(module, data_of(labels=True))
    assert predictions is not None
    torch.testing.assert_close(torch.cat([p.sum(1) for p in predictions]), torch.ones(16))  # type: ignore[union-attr]


def test_multilabel_fine_tuning(tmp_path: Path) -> None:
    module = FineTuning(modalities(), ENCODERS, 3, "multilabel", fusion=LateFusion)
    batch = split_of(6, 0)
    batch["label"] = torch.randint(0, 2, (6, 3))
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    assert module.training_step(batch, 0).isfinite()
    names = ("f1_weighted", "f1_micro", "f1_macro", "f1_samples", "map")
    assert set(module.val_metrics.keys()) == {f"val/{name}" for name in names}
    assert bool((module.predict_step(batch, 0) <= 1).all())


def test_thresholds_are_tuned_on_validation_kept_and_used_by_the_test(tmp_path: Path) -> None:
    seed_everything(0, verbose=False)
    sizes = {"train": 32, "val": 24, "test": 24}
    splits: dict[str, Any] = {name: split_of(n, i) for i, (name, n) in enumerate(sizes.items())}
    for tensors in splits.values():
        strength = tensors["left"].mean((1, 2))
        tensors["label"] = torch.stack([strength > 0, strength > 0.2, strength < 0], dim=1).long()
    data = TensorDataModule(**splits, kinds={"left": "motion", "right": "motion"}, batch_size=8)
    module = FineTuning(modalities(), ENCODERS, 3, "multilabel", genotype=genotype(), threshold=0.3)
    assert module.get_buffer("thresholds").tolist() == pytest.approx([0.3] * 3)
    trainer = trainer_of(tmp_path, max_epochs=3)
    trainer.fit(module, data)
    with torch.no_grad():
        data.setup("test")
        val, test = (torch.sigmoid(module.eval()(data.tensors(name))) for name in ("val", "test"))
    torch.testing.assert_close(module.get_buffer("thresholds"), tune_thresholds(val, data.tensors("val")["label"]))
    found = trainer.test(module, data, verbose=False)[0]
    truth = data.tensors("test")["label"].numpy()
    for suffix, threshold in (("", torch.tensor(0.3)), ("_tuned", module.get_buffer("thresholds"))):
        decisions = (test > threshold).long().numpy()
        for average in ("weighted", "micro", "macro", "samples"):
            reference = f1_score(truth, decisions, average=average, zero_division=0)
            assert found[f"test/f1_{average}{suffix}"] == pytest.approx(reference, abs=1e-5)
    trainer.save_checkpoint(tmp_path / "tuned.ckpt")
    state = torch.load(tmp_path / "tuned.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(state["thresholds"], module.get_buffer("thresholds"))
    with pytest.raises(ConfigError, match=r"threshold must be in \(0, 1\)"):
        FineTuning(modalities(), ENCODERS, 3, "multilabel", genotype=genotype(), threshold=1.0)


def test_pretrained_weights_are_taken_over(tmp_path: Path, encoder_checkpoint: str) -> None:
    path = tmp_path / "genotype.json"
    genotype().save(path)
    arguments: dict[str, Any] = {"genotype": str(path), "encoder_weights": encoder_checkpoint}
    pretraining = FusionPretraining(modalities(), ENCODERS, **arguments)
    trainer = trainer_of(tmp_path)
    trainer.fit(pretraining, data_of())
    trainer.save_checkpoint(tmp_path / "pretrain.ckpt")
    weights = str(tmp_path / "pretrain.ckpt")
    tuned = FineTuning(modalities(), ENCODERS, 2, "multiclass", network_weights=weights, **arguments)
    assert same(state_of(pretraining.network), state_of(tuned.network))
    assert same(state_of(pretraining.encoders), state_of(tuned.encoders))

    other = {**arguments, "genotype": genotype(5)}
    assert other["genotype"] != genotype()
    with pytest.raises(CheckpointError, match=r"network_weights: checkpoint .* is of another architecture"):
        FineTuning(modalities(), ENCODERS, 2, "multiclass", network_weights=weights, readout="flatten", **arguments)


def test_weights_of_another_wiring_are_refused(tmp_path: Path) -> None:
    """The entries' names and shapes are those of the network; only the genotype tells."""

    def wired(*pairs: tuple[str, str]) -> Genotype:
        step = {"inputs": ("x", "y"), "primitive": "sum"}
        cells = [{"inputs": pair, "steps": [step]} for pair in pairs]
        return Genotype(space=SPACE, cells=cells)  # type: ignore[arg-type]

    one = wired(("left/0", "right/0"), ("left/1", "right/1"))
    other = wired(("left/0", "left/1"), ("right/0", "right/1"))
    trainer = trainer_of(tmp_path)
    trainer.fit(FusionPretraining(modalities(), ENCODERS, genotype=one), data_of())
    weights = tmp_path / "pretrain.ckpt"
    trainer.save_checkpoint(weights)
    with pytest.raises(CheckpointError, match="another architecture"):
        FineTuning(modalities(), ENCODERS, 2, "multiclass", genotype=other, network_weights=str(weights))
    with pytest.raises(CheckpointError, match="another architecture"):
        trainer_of(tmp_path).fit(
            FusionPretraining(modalities(), ENCODERS, genotype=other), data_of(), ckpt_path=weights
        )
    loaded = FusionPretraining.load_from_checkpoint(
        weights, modalities=modalities(), encoders=ENCODERS, genotype=one, map_location="cpu", weights_only=True
    )
    assert loaded.network.genotype == one


def test_clipping_works_under_mixed_precision(tmp_path: Path) -> None:
    search = FusionSearch(modalities(), ENCODERS, **SMALL)
    trainer = trainer_of(tmp_path, precision="bf16-mixed", gradient_clip_val=1.0)
    trainer.callbacks.append(ArchitectureAlternation(lr=0.1))  # type: ignore[attr-defined]
    trainer.fit(search, data_of(architecture_fraction=0.5))
    assert any(logits.any() for logits in search.architecture_parameters())


def test_a_linear_probe_leaves_nothing_to_ddp_but_the_classifier() -> None:
    module = FineTuning(modalities(), ENCODERS, 2, "multiclass", genotype=genotype(), mode="linear_probe")
    assert [name for name, p in module.named_parameters() if p.requires_grad] == [
        "classifier.weight",
        "classifier.bias",
    ]


def test_a_loss_from_which_nobody_steps_is_refused(tmp_path: Path) -> None:
    class Manual(EncoderPretraining):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            self.automatic_optimization = False

    class Own(Manual):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            optimizer: Any = self.optimizers()
            loss = super().training_step(batch, batch_idx)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            return loss

    arguments: dict[str, Any] = {"encoders": ENCODERS, "modalities": modalities()}
    with pytest.raises(ConfigError, match="Manual has automatic_optimization=False and no training_step of its own"):
        trainer_of(tmp_path).fit(Manual(**arguments), data_of())
    trainer = trainer_of(tmp_path)
    trainer.fit(Own(**arguments), data_of())
    assert trainer.global_step == 4


def test_frozen_weights_are_refused(tmp_path: Path) -> None:
    module = EncoderPretraining(modalities(), ENCODERS)
    module.freeze()
    with pytest.raises(ConfigError, match="all weights of EncoderPretraining are frozen, as freeze"):
        trainer_of(tmp_path).fit(module, data_of())


@pytest.mark.filterwarnings("ignore:No ArchitectureAlternation")
def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        FusionSearch(modalities(), ENCODERS, encoder_weights=str(tmp_path / "none.ckpt"), **SMALL)
    (tmp_path / "damaged.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="is not a Lightning checkpoint"):
        FusionSearch(modalities(), ENCODERS, encoder_weights=str(tmp_path / "damaged.ckpt"), **SMALL)
    with pytest.raises(ConfigError, match="exactly one of"):
        FusionPretraining(modalities(), ENCODERS)
    with pytest.raises(ConfigError, match="exactly one of"):
        FusionPretraining(modalities(), ENCODERS, genotype=genotype(), fusion=LateFusion)
    with pytest.raises(ConfigError, match="'left' has no encoder"):
        FusionSearch(modalities(), {"right": ENCODERS["motion"]}, **SMALL)
    with pytest.raises(ConfigError, match=r"encoders for \['text'\]"):
        FusionSearch(modalities(), {**ENCODERS, "text": ENCODERS["motion"]}, **SMALL)
    foreign = FusionSpace(inputs=("image/0", "text/0")).sample(torch.Generator().manual_seed(0))
    with pytest.raises(GenotypeError, match=r"for another space: its inputs \['image/0', 'text/0'\]"):
        FusionPretraining(modalities(), ENCODERS, genotype=foreign)
    with pytest.raises(DataError, match="one class only"):
        FineTuning(modalities(), ENCODERS, 1, "multiclass", genotype=genotype())
    with pytest.raises(ConfigError, match="cannot be the name of a modality"):
        build_encoders({"keys": modalities()["left"]}, ENCODERS)
    with pytest.raises(ConfigError, match="architecture_fraction"):
        trainer_of(tmp_path).fit(FusionSearch(modalities(), ENCODERS, **SMALL), data_of())
    with pytest.raises(ConfigError, match="needs labels"):
        FineTuning(modalities(), ENCODERS, genotype=genotype())


def test_objectives_are_interchangeable() -> None:
    from lightly.loss import BarlowTwinsLoss, DCLLoss, VICRegLoss

    batch = {name: value for name, value in split_of(8, 0).items() if name != "label"}
    objectives: list[nn.Module] = [BarlowTwinsLoss(), DCLLoss(), VICRegLoss()]
    losses = []
    for objective in objectives:
        seed_everything(0, verbose=False)
        losses.append(FusionSearch(modalities(), ENCODERS, objective=objective, **SMALL).loss(batch).item())
    assert len(set(losses)) == 3


def test_encoders_that_come_with_their_weights_keep_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    stage = EncoderPretraining(modalities(), ENCODERS, frozen=["left"], projection_hidden=8, projection_out=4)
    before = state_of(stage.encoders)
    trainer_of(tmp_path, limit_val_batches=0).fit(stage, data_of())
    after = state_of(stage.encoders)
    assert [name for name in before if name.startswith("left.") and not torch.equal(before[name], after[name])] == []
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("right."))
    assert list(stage.projectors) == ["right"]
    torch.manual_seed(0)
    with pytest.raises(ConfigError, match="all encoders are frozen"):
        EncoderPretraining(modalities(), ENCODERS, frozen=["motion"])
    with pytest.raises(ConfigError, match=r"frozen names \['middle'\], but the modalities are \['left', 'right'\]"):
        EncoderPretraining(modalities(), ENCODERS, frozen=["middle"])
