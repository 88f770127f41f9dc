# SPDX-License-Identifier: Apache-2.0
"""Build the site: ``make docs``; the tutorials are executed where LDAE_DOCS_EXECUTE is set, as ``make docs-full`` does."""

import os
import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS)]

from reference import write_pages  # noqa: E402

from ldae.version import __version__  # noqa: E402

project = 'ldae'
author = 'the authors of ldae'
project_copyright = f'{author}, Apache 2.0'
release = version = __version__

extensions = ['myst_nb', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode']
exclude_patterns = ['generated/.*']
suppress_warnings = ['mystnb.unknown_mime_type']
smartquotes_action = 'D'  # quotes stay as they are typed: they are pasted
# A block that names no language is a drawing or output.
highlight_language = 'none'

myst_enable_extensions = ['colon_fence', 'deflist']
myst_heading_anchors = 4
nb_execution_mode = 'force' if os.environ.get('LDAE_DOCS_EXECUTE') else 'off'
nb_execution_timeout = 1800
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_merge_streams = True
os.environ.setdefault('PYTHONWARNINGS', 'ignore:IProgress not found')  # tqdm's, with a path of this machine

autodoc_typehints = 'signature'
autodoc_preserve_defaults = True
autodoc_member_order = 'bysource'
autodoc_class_signature = 'mixed'
python_maximum_signature_line_length = 100
napoleon_use_rtype = False
napoleon_use_param = False
napoleon_custom_sections = []
add_module_names = False
toc_object_entries_show_parents = 'hide'

html_theme = 'pydata_sphinx_theme'
html_title = 'ldae'
html_static_path = ['_static']
html_search_scorer = str(DOCS / '_static' / 'scorer.js')
html_css_files = ['site.css']
html_sidebars = {page: [] for page in ('index', 'architecture', 'faq', 'changelog')}  # no pages below them
html_copy_source = False
html_show_sourcelink = False
html_theme_options = dict(
    logo=dict(text='ldae'),
    navbar_align='left',
    navbar_persistent=['search-button'],
    navbar_end=['theme-switcher'],
    header_links_before_dropdown=6,
    show_prev_next=True,
    navigation_with_keys=False,
    secondary_sidebar_items=['page-toc'],
    footer_start=['copyright'],
    footer_end=[],
    back_to_top_button=False,
)
linkcheck_timeout = 20
linkcheck_allowed_redirects = {r'https://.*': r'https://.*'}

#: Pages of the repository's root, and the page of the site that shows each.
FROM_ROOT = dict(
    contributing='CONTRIBUTING.md', changelog='CHANGELOG.md', releasing='RELEASING.md', security='SECURITY.md'
)
LINK = re.compile(r'(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)')
FENCES = re.compile(r'(^(`{3,}|:{3,}).*?^\2$)', re.DOTALL | re.MULTILINE)


def show_page(app: object, docname: str, source: list[str]) -> None:
    """Bring a page's links to files of the repository to what the site has of them."""
    page = DOCS / docname
    if docname in FROM_ROOT:
        page = ROOT / FROM_ROOT[docname]
        source[0] = page.read_text() + ''.join(
            re.findall(r'\n```{toctree}.*?^```\n', source[0], re.DOTALL | re.MULTILINE)
        )
    if docname.startswith('generated/'):
        return
    pieces = FENCES.split(source[0])
    # The text, a fenced block and its fence, in turn.
    for i in range(0, len(pieces), 3):
        pieces[i] = LINK.sub(lambda link: _link(link, page.parent, (DOCS / docname).parent), pieces[i])
    source[0] = ''.join(piece for i, piece in enumerate(pieces) if i % 3 != 2)
    if docname == 'commands':
        source[0] = re.sub(r'`ldae ([a-z-]+)`(?= \|)', r'[`ldae \1`](generated/cli/\1.rst)', source[0])


def _link(link: re.Match, here: Path, there: Path) -> str:
    """A link of a page in folder ``here`` as one of a page in ``there``; a folder of the repository is its name alone."""
    text, target = link.groups()
    if '://' in target or target.startswith(('#', 'mailto:')):
        return link[0]
    path, _, anchor = target.partition('#')
    file = Path(os.path.normpath(here / path))
    pages = {ROOT / name: DOCS / f'{page}.md' for page, name in FROM_ROOT.items()} | {
        ROOT / 'README.md': DOCS / 'index.md'
    }
    file = pages.get(file, file)
    if file.is_dir():  # what the site has of it
        pages = {
            'deconstruction': 'rows.md',
            'after_paper': 'rows.md',
            'tokenizers': 'components/tokenizer_training.md',
        }
        room = file.relative_to(ROOT).parts[1:2]
        if file.parent == ROOT / 'configs':
            file = DOCS / pages.get(file.name, 'model_zoo.md')
        elif room and (DOCS / 'generated' / 'api' / f'{room[0]}.rst').is_file():
            file = DOCS / 'generated' / 'api' / f'{room[0]}.rst'
    if not file.is_file():
        return text
    return f'[{text}]({os.path.relpath(file, there)}{"#" * bool(anchor)}{anchor})'


def plain_types(
    app: object, what: str, name: str, obj: object, options: object, signature: str | None, returned: str | None
):
    """Show ``int`` where a signature says ``Annotated[int, Range(...)]``: ranges are told in the text and by errors."""

    def plain(text: str | None) -> str | None:
        while text and (start := text.find('Annotated[')) >= 0:
            depth, comma, end = 1, None, start + len('Annotated[')
            while depth:
                depth += {'[': 1, '(': 1, ']': -1, ')': -1}.get(text[end], 0)
                comma = end if comma is None and depth == 1 and text[end] == ',' else comma
                end += 1
            text = text[:start] + text[start + len('Annotated[') : comma] + text[end:]
        return text

    return plain(signature), plain(returned)


def own_docstring(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Leave out what Python says of ``operator.attrgetter``, and keep Napoleon from taking text before a colon for a type."""
    if lines and lines[0].startswith('attrgetter('):
        lines.clear()
    elif what in ('property', 'attribute', 'data'):
        lines.insert(0, '\\')  # a line without a colon, of which nothing is shown


def show_files(app: object, page: str, template: str, context: dict, doctree: object) -> None:
    """Let a browser show the repository's files that a page links to, instead of saving them."""
    context['body'] = context.get('body', '').replace(' download=""', '')


def setup(app: object) -> None:
    """Write the pages of reference before they are read."""
    write_pages(DOCS / 'generated')
    app.connect('source-read', show_page)
    app.connect('autodoc-process-signature', plain_types)
    app.connect('autodoc-process-docstring', own_docstring, priority=400)  # before Napoleon
    app.connect('html-page-context', show_files)
