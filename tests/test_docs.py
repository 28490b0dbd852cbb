"""What the documents say of the code is true of it."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from optly_celery import Settings

ROOT = Path(__file__).parents[1]


def test_every_test_that_a_document_names_exists():
    """A row of docs/failures.md without its test would be a promise without proof."""
    named = set()
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        named |= set(re.findall(r"`(test_\w+)`", page.read_text()))
    defined = set()
    for module in ROOT.glob("tests/**/*.py"):
        defined |= set(re.findall(r"^def (test_\w+)", module.read_text(), re.MULTILINE))

    assert named
    assert named - defined == set()


def test_every_setting_is_in_the_readme_with_its_name():
    """The table has one row for each setting, and no other."""
    rows = re.findall(r"^\| `optly_(\w+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)

    assert rows.count("enabled") == 1
    assert set(rows) == {item.name for item in fields(Settings)}


def test_every_link_between_documents_leads_somewhere():
    """Relative links only; others are not ours to keep."""
    broken = []
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken += [f"{page.name}: {target}"]

    assert broken == []
