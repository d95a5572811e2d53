"""The hardware table: the shipped one reads, broken ones are refused with a line each."""

import pytest

from flopstat import hardware
from flopstat.errors import InputError

GOOD = "{tflops: 10, bandwidth_gb_s: 100, memory_gib: 8, source: here}"


def test_the_shipped_table_holds_the_devices_that_studies_name():
    devices = hardware.read()
    assert set(devices) == {"T4", "L4", "A10", "A100-40GB", "A100-80GB", "H100", "RTX-3090", "RTX-4090"}
    t4 = devices["T4"]
    assert (t4.peak_flops, t4.bandwidth, t4.memory_bytes) == (65e12, 320e9, 16 * 2**30)
    assert t4.intensity == pytest.approx(203.125)
    assert t4.watts is None
    assert t4.fingerprint == "data sheet, 2026-11-22"
    for device in devices.values():
        assert 70 < device.intensity < 450  # FLOP/byte; a peak with sparsity would be out of range for A100, L4 and H100


def test_units_of_the_file_are_tera_giga_and_gibi(tmp_path):
    path = tmp_path / "h.yaml"
    path.write_text(f"as_of: 2026-01-02\ndevices: {{X: {GOOD}}}")
    device = hardware.read(path)["X"]
    assert (device.peak_flops, device.bandwidth, device.memory_bytes) == (10e12, 100e9, 8 * 2**30)


def test_an_unknown_device_lists_the_known_ones_and_case_does_not_matter():
    devices = hardware.read()
    assert hardware.find(devices, "rtx-4090") is devices["RTX-4090"]
    with pytest.raises(InputError, match=r"'B200': not in the hardware table; it knows T4, L4, .*config/hardware.yaml"):
        hardware.find(devices, "B200")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"devices: {{X: {GOOD}}}", "as_of"),
        ("as_of: 2026-01-02\ndevices: {}", "as_of .* and devices"),
        ("[1, 2]", "as_of"),
        ("as_of: [", "not YAML"),
        ("as_of: 2026-01-02\ndevices: {X: {tflops: 10}}", r"devices\.X: exactly bandwidth_gb_s, memory_gib, source, tflops"),
        (f"as_of: 2026-01-02\ndevices: {{X: {GOOD.replace('10,', '0,', 1)}}}", r"devices\.X\.tflops is 0"),
        (f"as_of: 2026-01-02\ndevices: {{X: {GOOD.replace('100', '-3')}}}", r"bandwidth_gb_s is -3"),
        (f"as_of: 2026-01-02\ndevices: {{X: {GOOD.replace('8', 'yes')}}}", r"memory_gib is True"),
        (f"as_of: 2026-01-02\ndevices: {{X: {GOOD.replace('8', '.inf')}}}", r"memory_gib is inf"),
        (f"as_of: 2026-01-02\ndevices: {{X: {GOOD.replace('8', '1' + '0' * 400)}}}", r"memory_gib is 10"),  # too large for a float
    ],
)
def test_a_broken_table_is_refused(tmp_path, text, message):
    path = tmp_path / "h.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        hardware.read(path)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(InputError, match="no such hardware table"):
        hardware.read(tmp_path / "h.yaml")
