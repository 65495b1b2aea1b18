"""What is not as it was built is found, whatever it is."""

from __future__ import annotations

from pathlib import Path

from builder.embedded.examine import check_records
from tests.support.packages import FILES


def test_changed_missing_and_unreadable_files_are_found(site: Path) -> None:
    _, count, _, problems = check_records(site, {})
    assert (count, problems) == (len(FILES) + 1 + 2 * 2, [])
    (site / "anchor/a.py").write_text("changed")
    (site / "anchor/data.bin").unlink()
    (site / "other/a.py").unlink()
    (site / "other/a.py").mkdir()
    record = site / "anchor-1.0.dist-info/RECORD"
    record.write_text(record.read_text() + "anchor/odd.py,sha9000=x,1\nnot-hashed.py,,\n\n")
    (site / "anchor/odd.py").write_text("")
    _, count, _, problems = check_records(site, {})
    assert count == len(FILES) + 1 + 2 * 2 + 1
    assert [str(problem) for problem in problems] == [
        "anchor/a.py was changed",
        "anchor/data.bin is missing",
        "anchor/odd.py cannot be checked: unsupported hash type sha9000",
        f"other/a.py cannot be checked: [Errno 21] Is a directory: '{site}/other/a.py'",
    ]
