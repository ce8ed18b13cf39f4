from pathlib import Path

from hardware_profiles.detect import Host, detect

CPUINFO = "processor\t: 0\nmodel name\t: Fast CPU 9000\nmodel name\t: another\n"


def test_a_host_is_described_by_what_its_kernel_tells(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    (proc / "device-tree").mkdir(parents=True)
    (proc / "cpuinfo").write_text(CPUINFO)
    (proc / "meminfo").write_text("MemTotal:        4194304 kB\nMemFree:  1 kB\n")
    (proc / "device-tree" / "model").write_text("Raspberry Pi 4 Model B Rev 1.4\0")

    host = detect(tmp_path)

    assert (host.cpu, host.board) == ("Fast CPU 9000", "Raspberry Pi 4 Model B Rev 1.4")
    assert host.memory_bytes == 4 * 2**30
    assert host.num_cores >= 1
    assert str(host).startswith("Raspberry Pi 4 Model B Rev 1.4 (")
    assert str(host).endswith("4.0 GiB)")


def test_what_cannot_be_read_stays_empty(tmp_path: Path) -> None:
    host = detect(tmp_path)

    assert (host.cpu, host.board, host.memory_bytes) == ("", "", 0)
    assert str(host).startswith("unknown processor")


def test_memory_that_is_no_number_is_not_told(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: lots\n")

    assert detect(tmp_path).memory_bytes == 0


def test_a_host_with_a_processor_name_is_called_by_it() -> None:
    assert str(Host("x86_64", "Fast CPU", "", 2, 0)) == "Fast CPU (x86_64, 2 cores)"
