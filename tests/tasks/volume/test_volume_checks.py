"""Each way a NIfTI file can be unusable is named, with what to do."""

import gzip

import nibabel
import numpy as np
import pytest

from tasks.volume.checks import check_volume


def ramp(*shape, first=0.0):
    data = np.arange(np.prod(shape), dtype=np.float32)
    data[0] = first
    return data.reshape(shape)


def test_good_volumes_pass(save_nifti):
    assert check_volume(save_nifti("a.nii.gz")) is None
    assert check_volume(save_nifti("b.nii", np.arange(60, dtype=np.uint8).reshape(3, 4, 5, 1))) is None


@pytest.mark.parametrize("name", ["cut.nii.gz", "cut.nii"])
def test_truncated_file(save_nifti, name):
    path = save_nifti(name, np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "truncated or damaged" in check_volume(path)
    # Of a packed file the header alone cannot tell.
    assert (check_volume(path, voxels=False) is None) == name.endswith(".gz")


def test_damaged_gzip_stream(save_nifti):
    path = save_nifti("a.nii.gz", np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
    path.write_bytes(content)
    # Whether zlib notices depends on what the damage hits; a stream cut to nothing is always noticed.
    path.write_bytes(gzip.compress(b"not an image at all, but valid gzip"))
    assert "cannot be read as an image" in check_volume(path)


def test_a_header_with_an_unknown_type_of_voxels(save_nifti):
    path = save_nifti("a.nii", np.zeros((4, 4, 4), np.float32))
    content = bytearray(path.read_bytes())
    content[70:72] = (4321).to_bytes(2, "little")  # datatype, NIfTI-1 header
    path.write_bytes(content)
    assert "cannot be read as an image (data code 4321 not" in check_volume(path)


def test_not_an_image_and_not_there(tmp_path):
    (tmp_path / "a.nii.gz").write_text("hello")
    assert "cannot be read as an image" in check_volume(tmp_path / "a.nii.gz")
    (tmp_path / "empty.nii.gz").write_bytes(b"")
    assert "cannot be read as an image" in check_volume(tmp_path / "empty.nii.gz")
    assert "does not exist; correct the path" in check_volume(tmp_path / "none.nii.gz")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(ramp(2, 3, 4, first=np.nan), "1 of 24 voxels are NaN or infinite", id="nan"),
        pytest.param(ramp(2, 3, 4, first=np.inf), "1 of 24 voxels", id="inf"),
        pytest.param(np.full((3, 3, 3), 7, np.float32), "every voxel is 7", id="constant"),
        pytest.param(ramp(3, 4, 1), "2 voxels along every axis, got 3 x 4 x 1", id="slice"),
        pytest.param(ramp(2, 3, 4, 2), "one 3-D volume, got shape 2 x 3 x 4 x 2", id="4d"),
        pytest.param(ramp(3, 4), "one 3-D volume, got shape 3 x 4", id="2d"),
        pytest.param(np.zeros((2, 3, 4), np.complex64), "expected numbers as voxels, got complex64", id="complex"),
    ],
)  # fmt: skip
def test_unusable_volumes(save_nifti, data, words):
    assert words in check_volume(save_nifti("a.nii.gz", data))


def test_singular_affine(tmp_path):
    image = nibabel.Nifti1Image(np.arange(27, dtype=np.float32).reshape(3, 3, 3), np.eye(4))
    image.header.set_sform(np.diag([1.0, 1.0, 0.0, 1.0]), 1)
    image.header["qform_code"] = 0
    path = tmp_path / "a.nii"
    nibabel.Nifti1Image(image.dataobj, None, image.header).to_filename(path)
    raw = bytearray(path.read_bytes())
    raw[280 + 32 : 280 + 48] = bytes(16)  # srow_z
    path.write_bytes(raw)
    assert "affine is singular" in check_volume(path)
