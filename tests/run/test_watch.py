"""What counts as a change of the watched files, and where a change must be looked for."""

from __future__ import annotations

import os
import time
from pathlib import Path

from gateway.server.watch import Watched


def test_the_stamp_follows_content_alone(tmp_path: Path) -> None:
    """Times don't count; content, and whether a file is there, do."""
    file = tmp_path / "a.yaml"
    file.write_text("one")
    watched = Watched((file,))
    first = watched.stamp()

    os.utime(file, (1, 1))
    assert watched.stamp() == first

    file.write_text("two")
    second = watched.stamp()
    assert second != first

    file.unlink()
    assert watched.stamp() not in (first, second)


def test_a_new_file_in_a_glob_changes_the_stamp(tmp_path: Path) -> None:
    """Files that the globs match now belong to the stamp; others don't."""
    watched = Watched((), (tmp_path / "routes" / "*.yaml",))
    (tmp_path / "routes").mkdir()
    before = watched.stamp()

    (tmp_path / "routes" / "notes.txt").write_text("x")
    assert watched.stamp() == before
    (tmp_path / "routes" / "new.yaml").write_text("x")
    assert watched.stamp() != before


def test_directories_of_every_link_are_watched(tmp_path: Path) -> None:
    """A file behind two links can change in three places."""
    for name in ("config", "data", "store"):
        (tmp_path / name).mkdir()
    (tmp_path / "store" / "real.yaml").write_text("x")
    (tmp_path / "data" / "link.yaml").symlink_to("../store/real.yaml")
    (tmp_path / "config" / "gateway.yaml").symlink_to("../data/link.yaml")

    found = Watched((tmp_path / "config" / "gateway.yaml",)).directories()

    assert {tmp_path / name for name in ("config", "data", "store")} <= set(found)


def test_a_missing_directory_is_watched_from_above(tmp_path: Path) -> None:
    """Where nothing is yet, the nearest directory that exists will tell."""
    watched = Watched((tmp_path / "later" / "on" / "a.yaml",))

    assert watched.directories() == [tmp_path]


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    """A loop of links is a missing file, and no endless loop here."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    watched = Watched((tmp_path / "a",))

    assert watched.directories() == [tmp_path]
    assert watched.stamp() == watched.stamp()


def test_what_was_touched_while_loading_is_known(tmp_path: Path) -> None:
    """A file older than the load has not changed under it; a younger one may have."""
    file = tmp_path / "a.yaml"
    file.write_text("one")
    watched = Watched((file,))

    assert watched.touched_since(time.time() - 5)
    assert not watched.touched_since(time.time() + 5)
