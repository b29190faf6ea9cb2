"""Writes `mmimdb_mini` (6,758 films of MM-IMDB's split, posters and plots) in the layout of the raw MM-IMDB release.

    python benchmarks/mmimdb_mini.py path/to/mmimdb_mini.npz --output data/mmimdb_mini

The archive is not part of the project and must not be redistributed. Its genres are TMDB's, 18 of MM-IMDB's 23:
`--data.init_args.genres` with the list that this script prints reads them.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    if options.output.exists():
        parser.error(f"{options.output} exists")
    temporary = options.output.with_name(f".{options.output.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "dataset").mkdir(parents=True)
    with np.load(options.archive, allow_pickle=False) as archive:
        content = {name: archive[name] for name in archive.files}
    names = [str(name) for name in content["genre_names"]]
    ids = [str(imdb_id) for imdb_id in content["imdb_id"]]
    for i, imdb_id in enumerate(ids):
        plot, title, jpeg = (
            content[f"{what}"][content[f"{offsets}"][i] : content[f"{offsets}"][i + 1]].tobytes()
            for what, offsets in (
                ("plot_utf8", "plot_offsets"),
                ("title_utf8", "title_offsets"),
                ("jpeg", "jpeg_offsets"),
            )
        )
        genres = [name for name, has in zip(names, content["genres"][i], strict=True) if has]
        film = {"title": title.decode(), "genres": genres, "plot": [plot.decode()]}
        (temporary / "dataset" / f"{imdb_id}.json").write_text(json.dumps(film), encoding="utf-8")
        (temporary / "dataset" / f"{imdb_id}.jpeg").write_bytes(jpeg)
    split = {
        name: [ids[i] for i in np.flatnonzero(content["split"] == number)]
        for number, name in enumerate(("train", "dev", "test"))
    }
    (temporary / "split.json").write_text(json.dumps(split))
    temporary.rename(options.output)
    print({name: len(listed) for name, listed in split.items()})
    print("--data.init_args.genres", json.dumps(names))


if __name__ == "__main__":
    main()
