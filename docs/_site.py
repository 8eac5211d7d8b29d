"""What the site wants beside the extensions of others: figures, formulas, a check of links.

Decision: formulas become MathML, which browsers draw by themselves. MathJax would be fetched from
elsewhere whenever a page is read, and is not there for who reads without a network.
"""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.errors import SphinxError

COLOURS = ("#2f6f9f", "#c8401f", "#5a8f3c", "#8a5fa8", "#b8860b", "#555555")


def style(gallery_conf, fname):
    """Set how Matplotlib draws; sphinx-gallery calls it before each script."""
    from cycler import cycler
    from matplotlib import pyplot

    pyplot.rcParams.update(
        {
            "figure.figsize": (7.2, 3.4),
            "figure.constrained_layout.use": True,
            "savefig.bbox": "tight",
            "axes.prop_cycle": cycler(color=COLOURS),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "grid.color": "#dddddd",
            "grid.linewidth": 0.6,
            "legend.frameon": False,
            "lines.linewidth": 1.6,
        }
    )


def put_inline_formula(writer, node):
    """Write a formula within a line."""
    writer.body.append(latex2mathml.tex2mathml(node.astext()))
    raise nodes.SkipNode


def put_formula(writer, node):
    """Write a formula of its own, whose lines are aligned at &."""
    text = "\n".join(line for line in node.astext().splitlines() if line.strip())
    if "&" in text:
        text = f"\\begin{{aligned}}\n{text}\n\\end{{aligned}}"
    formula = latex2mathml.tex2mathml(text, as_block=True)
    writer.body.append(f'<div class="formula">{formula}</div>\n')
    raise nodes.SkipNode


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = set(), {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        """Take what points somewhere, and what can be pointed at."""
        for name, value in attrs:
            if value and name in ("id", "name"):
                self.anchors.add(value)
            if value and (name == "href" or (name == "src" and tag in ("img", "script"))):
                self.links.add(value)


def dead_links(folder):
    """Return "page: link" of each link that leads nowhere inside the folder of a built site."""
    folder = Path(folder).resolve()
    paths = [path for path in sorted(folder.rglob("*.html")) if "_static" not in path.parts]
    pages = {path: Page(path) for path in paths}
    dead = []
    for path, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            anchors = pages[target].anchors if target in pages else {""}
            html = target.suffix == ".html"
            if not target.exists() or (html and unquote(parts.fragment) not in anchors):
                dead.append(f"{path.relative_to(folder)}: {link}")
    return dead


def check_links(app, exception):
    """Fail a build of HTML that has a dead link inside."""
    if exception is None and app.builder.name == "html":
        dead = dead_links(app.outdir)
        if dead:
            raise SphinxError("links that lead nowhere:\n" + "\n".join(dead))


def leave_out_decisions(app, what, name, obj, options, lines):
    """Cut what a module's docstring says to those who read its source."""
    if what == "module":
        for k, line in enumerate(lines):
            if line.startswith("Decision"):
                del lines[k:]
                break


def leave_out_fields(app, what, name, obj, skip, options):
    """Leave out the fields of named tuples, which stand in the docstring of their class."""
    return True if (obj.__doc__ or "").startswith("Alias for field number") else None


def leave_unlinked(app, env, node, contnode):
    """Take as plain text the labels of scikit-learn's manual, which its docstrings bring along."""
    inherited = node.get("refdoc", "").startswith("api/fastlstm.estimators")
    return contnode if inherited and node.get("refdomain") == "std" else None


def setup(app):
    """Take part in the build."""
    app.add_html_math_renderer("mathml", (put_inline_formula, None), (put_formula, None))
    app.connect("autodoc-process-docstring", leave_out_decisions, priority=1)
    app.connect("autodoc-skip-member", leave_out_fields)
    app.connect("missing-reference", leave_unlinked)
    app.connect("build-finished", check_links, priority=999)
    return {"parallel_read_safe": True}
