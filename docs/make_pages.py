# SPDX-License-Identifier: Apache-2.0
"""Write every page and index that is made from the configs: ``make pages``. A test fails while one is out of date."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]  # of a clone where ldae isn't installed

import make_config_pages  # noqa: E402
import make_model_index  # noqa: E402
import make_model_zoo  # noqa: E402
import make_rows  # noqa: E402

from ldae.utils.error_lines import run_explained  # noqa: E402

#: In order: the pages of configs are made from what the index says of models.
MAKERS = (make_model_zoo, make_rows, make_model_index, make_config_pages)


def main(argv: object = None) -> None:
    """Write the files that differ from what the configs say."""
    for maker in MAKERS:
        for path, text in maker.files().items():
            if not path.is_file() or path.read_text() != text:
                path.write_text(text)
                print(f'wrote {path.relative_to(ROOT)}')


if __name__ == '__main__':
    sys.exit(run_explained(main))
