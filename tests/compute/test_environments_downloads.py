"""The lines of a real build, and what a person is told meanwhile."""

from __future__ import annotations

from modelyard.compute.backends.local.downloads import Downloads


def test_what_is_waited_for_and_how_far_it_is() -> None:
    told: list[tuple[str, float]] = []
    downloads = Downloads(lambda what, share: told.append((what, round(share, 2))))
    for line in (
        "Resolved 48 packages in 1.68s",
        "Downloading granian (5.0MiB)",
        "Downloading tensorflow-cpu (190.0MiB)",
        "Downloading pip (5.0MiB)",
        " Downloaded pip",
        " Downloaded granian",
    ):
        downloads.see(line)
    assert told[0] == ("granian (5 MB)", 0.0)
    assert told[2] == ("tensorflow-cpu (199 MB) and 2 more", 0.0)
    assert told[-1] == ("tensorflow-cpu (199 MB)", 0.05)
    downloads.unpacked(400 * 1024**2)
    assert told[-1] == ("tensorflow-cpu (199 MB)", 0.5)
    downloads.unpacked(10 * 1024**2)
    assert told[-1][1] == 0.5
    downloads.unpacked(10**12)
    assert told[-1][1] == 0.95
    downloads.see(" Downloaded tensorflow-cpu")
    assert told[-1] == ("all fetched", 1.0)


def test_pips_lines_count_too() -> None:
    told: list[str] = []
    downloads = Downloads(lambda what, share: told.append(what))
    downloads.see("Collecting torch==2.13.0 (from -r resolved.txt (line 1))")
    downloads.see("  Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl (191.1 MB)")
    downloads.see("  Downloading six-1.16.0-py2.py3-none-any.whl (11 kB)")
    assert told[-1] == "torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl (191 MB) and 1 more"


def test_nothing_is_told_before_something_is_known() -> None:
    told: list[str] = []
    downloads = Downloads(lambda what, share: told.append(what))
    downloads.unpacked(10**9)
    downloads.see("Installed 48 packages in 699ms")
    assert told == []
