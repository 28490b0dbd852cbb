"""What the documents say of the code is true of it."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from optly_celery import Settings

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "optly_celery"


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


def test_every_stop_of_the_architecture_page_is_a_module():
    """A page of names that lead nowhere is worse than none."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    stops = re.findall(r"`([a-z_]+(?:/[a-z_]+)*\.py)`", page)

    assert len(set(stops)) > 20
    assert [stop for stop in stops if not (PACKAGE / stop).is_file()] == []


def test_every_room_is_in_the_architecture_page():
    """Each with what it is for, and the price of deleting it."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    rooms = set(re.findall(r"^\| `([a-z_/]+)/` \|", page, re.MULTILINE))
    there = {str(init.parent.relative_to(PACKAGE)) for init in PACKAGE.glob("*/__init__.py")}

    assert {room.split("/")[0] for room in rooms} == there
    assert {room for room in rooms if not (PACKAGE / room).is_dir()} == set()


def test_the_house_is_small():
    """A module is read in one sitting, and the root holds public doors alone."""
    sizes = {module: len(module.read_text().splitlines()) for module in PACKAGE.rglob("*.py")}

    assert {module.name: lines for module, lines in sizes.items() if lines > 250} == {}
    assert len([module for module in sizes if module.parent == PACKAGE]) <= 12
