"""A zoo of odd files, each with its recorded outcome: a line that tells what to do, or voxels in the right place.

Nearly all are made here; those of formats that nibabel only reads come from its own tests, where they are installed.
"""

import gzip
import importlib.util
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Compose

from tasks.__main__ import main
from tasks.data.problems import BadInput
from tasks.volume import CSVData, VolumeTask, to_file_space
from tasks.volume.checks import Wanted, check_volume, look_at
from tasks.volume.intensity import percentile_scale
from tasks.volume.transforms import preprocessing

SHAPE, SPOT = (12, 10, 11), (7, 3, 5)
LAS, PIR = np.diag([-1.0, 1, 1, 1]), np.array([[0, 0, 1.0, 3], [-1, 0, 0, 5], [0, -1, 0, 7], [0, 0, 0, 1]])
OBLIQUE = np.array([[0.9, -0.43, 0, 4], [0.43, 0.9, 0, -2], [0, 0, 2.0, 9], [0, 0, 0, 1]])
INSTALLED = Path(nibabel.__file__).parent / "tests" / "data"


def blob(dtype=np.float32, background=10):
    """A bright spot in a dark volume: what has to be found where it was put, in millimetres."""
    data = np.full(SHAPE, background, dtype)
    data[SPOT] = 200
    data[0, 0, 0] = background + 1
    return data


def nifti(data, affine=None, kind=nibabel.Nifti1Image, **header):
    image = kind(data, np.eye(4) if affine is None else affine)
    for name, value in header.items():
        image.header[name] = value
    return image


def raw(path, change):
    """Change bytes of a file that was written."""
    content = bytearray(path.read_bytes())
    path.write_bytes(bytes(change(content) or content))


def header_only(path, place, value):
    """Overwrite a part of a NIfTI-1 header."""
    raw(path, lambda content: content.__setitem__(slice(place, place + len(value)), value))


def big_endian(data):
    image = nibabel.Nifti1Image(data, np.eye(4), header=nibabel.Nifti1Header(endianness=">"))
    assert image.header.endianness == ">"
    return image


def scaled(path):
    """Stored as int16, with a slope and an intercept."""
    image = nibabel.Nifti1Image(blob(np.int16), np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    image.to_filename(path)


def two_halves(path):
    """sform and qform disagree: nibabel takes the sform."""
    image = nibabel.Nifti1Image(blob(), LAS)
    image.set_sform(LAS, 1)
    image.set_qform(np.eye(4), 1)
    image.to_filename(path)


def quaternion(path):
    image = nibabel.Nifti1Image(blob(), LAS)
    image.set_sform(None, 0)
    image.set_qform(LAS, 1)
    image.to_filename(path)


READ = {
    "plain.nii": lambda path: nifti(blob()).to_filename(path),
    "packed.nii.gz": lambda path: nifti(blob()).to_filename(path),
    "uint8.nii": lambda path: nifti(blob(np.uint8)).to_filename(path),
    "int16.nii": lambda path: nifti(blob(np.int16)).to_filename(path),
    "uint16.nii": lambda path: nifti(blob(np.uint16)).to_filename(path),
    "float64.nii.gz": lambda path: nifti(blob(np.float64)).to_filename(path),
    "big_endian.nii": lambda path: big_endian(blob(np.int16)).to_filename(path),
    "slope.nii": scaled,
    "negative.nii": lambda path: nifti(blob(background=-1000)).to_filename(path),
    "las.nii.gz": lambda path: nifti(blob(), LAS).to_filename(path),
    "pir.nii.gz": lambda path: nifti(blob(), PIR).to_filename(path),
    "oblique.nii.gz": lambda path: nifti(blob(), OBLIQUE).to_filename(path),
    "disagree.nii": two_halves,
    "qform.nii": quaternion,
    "four.nii.gz": lambda path: nifti(blob()[..., None]).to_filename(path),
    "five.nii.gz": lambda path: nifti(blob()[..., None, None]).to_filename(path),
    "second.nii": lambda path: nifti(blob(), kind=nibabel.Nifti2Image).to_filename(path),
    "pair.img": lambda path: nifti(blob(), kind=nibabel.Nifti1Pair).to_filename(path),
    "pair.hdr": lambda path: nifti(blob(), kind=nibabel.Nifti1Pair).to_filename(path),
    "free.mgz": lambda path: nifti(blob(), OBLIQUE, nibabel.MGHImage).to_filename(path),
    "free.mgh": lambda path: nifti(blob(np.int16), LAS, nibabel.MGHImage).to_filename(path),
    "SHOUTED.NII.GZ": lambda path: nifti(blob()).to_filename(path),
    "spm.img": lambda path: nibabel.Spm99AnalyzeImage(blob(np.int16), OBLIQUE).to_filename(path),
    "name with blanks (1).nii.gz": lambda path: nifti(blob()).to_filename(path),
}


@pytest.mark.parametrize("name", READ)
def test_read_where_it_lies(name, tmp_path):
    """Checked as good, and the spot is where nibabel's affine puts it; the map goes back to the file's grid."""
    path = tmp_path / name
    READ[name](path)
    assert check_volume(path) is None
    sample = Compose(preprocessing(size=(16, 16, 16), spacing=None, fit="crop", intensity="none"))({"image": str(path)})
    image, affine = sample["image"], sample["affine"].numpy()
    assert (image.dtype, tuple(image.shape)) == (torch.float32, (1, 16, 16, 16))
    assert nibabel.aff2axcodes(affine) == ("R", "A", "S")
    file = nibabel.load(path)
    assert float(image.max()) == pytest.approx(float(file.get_fdata().max()))
    spot = np.unravel_index(int(image[0].argmax()), image.shape[1:])
    np.testing.assert_allclose(affine @ [*spot, 1], file.affine @ [*SPOT, 1], atol=1e-3)
    back = to_file_space(image[0].numpy(), affine, path)
    assert back.shape[:3] == file.shape[:3]
    np.testing.assert_allclose(back.affine, file.affine, atol=1e-5)
    assert np.unravel_index(int(back.get_fdata().argmax()), back.shape)[:3] == SPOT


def write(data, affine=None, **options):
    return lambda path: nifti(data, affine, **options).to_filename(path)


def written_then(change, data=None):
    def make(path):
        nifti(np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32) if data is None else data
              ).to_filename(path)  # fmt: skip
        change(path)

    return make


def unoriented(path):
    image = nibabel.Nifti1Image(blob(), None)
    image.header["sform_code"] = image.header["qform_code"] = 0
    image.to_filename(path)


def bomb(path):
    """A few kilobytes that unpack to a volume of 2 TB, if one let them."""
    header = nibabel.Nifti1Header()
    header.set_data_shape((8000, 8000, 8000))
    header.set_data_dtype(np.float32)
    header.set_sform(np.eye(4), 1)
    header["vox_offset"] = 352
    header.magic = b"n+1"
    content = bytearray(header.binaryblock)
    content[344:348] = b"n+1\0"
    path.write_bytes(gzip.compress(bytes(content) + b"\0" * 4 + b"\0" * 1_000_000))


def small_bomb(path):
    """One that promises less than is refused for its size, but more than gzip can hold."""
    bomb(path)
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[40:48] = np.array([3, 1000, 1000, 1000], "<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(content)))


def nan(*place):
    data = blob()
    data[place] = np.nan
    return data


def vectors(path):
    nifti(np.zeros((*SHAPE, 1, 3), np.float32), intent_code=1007).to_filename(path)


def colours(path):
    rgb = np.zeros(SHAPE, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nifti(rgb).to_filename(path)


def dicom_folder(path):
    path.mkdir()
    (path / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(100))


BAD = {
    "gone.nii.gz": (lambda path: None, "file does not exist; correct the path"),
    "empty.nii.gz": (lambda path: path.write_bytes(b""), "cannot be read as an image"),
    "text.nii.gz": (lambda path: path.write_text("hello"), "cannot be read as an image"),
    "text.nii": (lambda path: path.write_text("hello" * 200), "cannot be read as an image"),
    "noname": (lambda path: path.write_bytes(bytes(1000)), "cannot be read as an image"),
    "wrong_ending.nii.gz": (
        written_then(lambda path: path.write_bytes(gzip.decompress(path.read_bytes()))),
        "cannot be read as an image",
    ),
    "twice.nii.gz": (
        written_then(lambda path: path.write_bytes(gzip.compress(path.read_bytes()))),
        "cannot be read as an image",
    ),
    "cut.nii": (written_then(lambda path: raw(path, lambda c: c[: len(c) // 2])), "truncated or damaged"),
    "cut.nii.gz": (written_then(lambda path: raw(path, lambda c: c[: len(c) // 2])), "truncated or damaged"),
    "end.nii.gz": (written_then(lambda path: raw(path, lambda c: c[:-6])), "gzip stream is truncated or damaged"),
    "checksum.nii.gz": (
        written_then(lambda path: raw(path, lambda c: c[:-8] + bytes(4) + c[-4:])),
        "gzip stream is truncated or damaged (CRC check failed",
    ),
    "flipped.nii.gz": (
        written_then(lambda path: raw(path, lambda c: c.__setitem__(len(c) // 2, c[len(c) // 2] ^ 1))),
        "gzip stream is truncated or damaged",
    ),
    "cut.mgz": (
        lambda path: (nifti(blob(), kind=nibabel.MGHImage).to_filename(path), raw(path, lambda c: c[:-30])),
        "cannot be read as an image (Compressed file ended",
    ),
    "unknown_type.nii": (
        written_then(lambda path: header_only(path, 70, (4321).to_bytes(2, "little"))),
        "cannot be read as an image (data code 4321",
    ),
    "lies_about_size.nii": (
        written_then(lambda path: header_only(path, 42, (900).to_bytes(2, "little"))),
        "its header promises 1,440,000 bytes of voxels, which 32,352 bytes cannot hold",
    ),
    "negative_size.nii": (
        written_then(lambda path: header_only(path, 42, (-5).to_bytes(2, "little", signed=True))),
        "expected at least 2 voxels along every axis, got -5 x 20 x 20",
    ),
    "bomb.nii.gz": (bomb, "expected at most 1,073,741,824 voxels, its header promises 512,000,000,000; crop or"),
    "small_bomb.nii.gz": (small_bomb, "its header promises 4,000,000,000 bytes of voxels, which"),
    "unoriented.nii": (unoriented, "does not say how its voxels lie (sform and qform are 0, or there is none); repair"),
    "analyze.img": (
        lambda path: nibabel.AnalyzeImage(blob(np.int16), None).to_filename(path),
        "confirm that its axes point to LAS with --data.orientation trust",
    ),
    "no_size.nii": (
        written_then(lambda path: (header_only(path, 280, bytes(48)), header_only(path, 254, b"\1\0"))),
        "its affine is singular or not finite",
    ),
    "nan_affine.nii": (
        written_then(lambda path: header_only(path, 280, np.full(4, np.nan, "<f4").tobytes())),
        "its affine is singular or not finite",
    ),
    "nan.nii.gz": (write(nan(0, 0, 1)), "1 of 1320 voxels are NaN or infinite"),
    "inf.nii.gz": (write(np.where(blob() > 100, np.inf, 1).astype(np.float32)), "1 of 1320 voxels are NaN"),
    "constant.nii.gz": (write(np.full(SHAPE, 7, np.float32)), "every voxel is 7; a constant volume"),
    "zero_slope.nii": (written_then(lambda path: header_only(path, 112, bytes(8)), np.full(SHAPE, 3, np.float32)),
                       "every voxel is 3; a constant volume"),
    "series.nii.gz": (write(np.zeros((*SHAPE, 30), np.int16)), "one 3-D volume, got shape 12 x 10 x 11 x 30"),
    "vectors.nii": (vectors, "one 3-D volume, got shape 12 x 10 x 11 x 1 x 3"),
    "plane.nii.gz": (write(np.zeros((12, 10), np.float32)), "one 3-D volume, got shape 12 x 10"),
    "slice.nii.gz": (write(np.zeros((12, 10, 1), np.float32)), "2 voxels along every axis, got 12 x 10 x 1"),
    "colours.nii": (colours, "expected numbers as voxels, got [('R', 'u1'), ('G', 'u1'), ('B', 'u1')]"),
    "complex.nii": (write(np.zeros(SHAPE, np.complex64)), "expected numbers as voxels, got complex64"),
    "dicom": (dicom_folder, "is a folder of DICOM files; run dcm2niix -z y -o OUT 'dicom', and name what it writes"),
    "folder.nii.gz": (lambda path: path.mkdir(), "is a folder; name the file in it"),
    "one.dcm": (lambda path: path.write_bytes(bytes(500)), "is one DICOM file; run dcm2niix"),
    "hidden_dicom.nii": (lambda path: path.write_bytes(bytes(128) + b"DICM" + bytes(500)), "is one DICOM file"),
    "half_a_pair.img": (
        lambda path: (nifti(blob(), kind=nibabel.Nifti1Pair).to_filename(path), path.with_suffix(".hdr").unlink()),
        "cannot be read as an image",
    ),
    "other_half.hdr": (
        lambda path: (nifti(blob(), kind=nibabel.Nifti1Pair).to_filename(path), path.with_suffix(".img").unlink()),
        "its voxels are missing; put other_half.img beside it",
    ),
    "surface.gii": (
        lambda path: nibabel.GiftiImage(
            darrays=[nibabel.gifti.GiftiDataArray(np.zeros((3, 3), np.float32), "NIFTI_INTENT_POINTSET")]
        ).to_filename(path),
        "holds no volume but a GiftiImage; give an image of voxels",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_refused_in_a_line(name, tmp_path):
    make, words = BAD[name]
    make(tmp_path / name)
    what = check_volume(tmp_path / name)
    assert words in what
    assert "\n" not in what


@pytest.mark.parametrize("name", ["small.mnc", "minc1_1_scale.mnc", "analyze.hdr", "anatomical.nii", "standard.nii.gz",
                                  "minc2_1_scale.mnc", "example4d.nii.gz", "example4d+orig.HEAD", "scaled+tlrc.HEAD",
                                  "T1.PAR", "0.dcm", "simple.trk", "row_major.dconn.nii", "nifti1.hdr",
                                  "phantom_truncated.PAR"])  # fmt: skip
def test_what_is_accepted_is_read(name, tmp_path):
    """Files of nibabel's own tests, of every format: refused in a line, or read to finite numbers in RAS."""
    if not (INSTALLED / name).is_file():
        pytest.skip("nibabel's test files are not installed")
    for file in INSTALLED.glob(f"{name.partition('.')[0]}.*"):
        shutil.copy(file, tmp_path)
    path = tmp_path / name
    what = check_volume(path, orientation="trust")
    if what:
        assert ";" in what
        return
    sample = Compose(preprocessing(size=None, spacing=None, fit="crop", intensity="percentile"))({"image": str(path)})
    assert sample["image"].isfinite().all()
    assert nibabel.aff2axcodes(sample["affine"].numpy()) == ("R", "A", "S")


@pytest.mark.skipif(not INSTALLED.is_dir(), reason="nibabel's test files are not installed")
def test_minc_1_is_read_and_minc_2_needs_its_library():
    assert check_volume(INSTALLED / "minc1_1_scale.mnc") is None
    if importlib.util.find_spec("h5py") is None:
        what = check_volume(INSTALLED / "minc2_1_scale.mnc")
        assert what == "needs h5py to be read; run pip install h5py, or convert it to NIfTI"


def test_what_has_no_orientation_is_trusted_if_told_to(tmp_path, save_nifti):
    """By the data and, with the model that was trained on them, by explain."""
    rows = ["path,label"]
    for i in range(6):
        image = nibabel.Nifti1Image(np.random.default_rng(i).normal(size=(8, 8, 8)).astype(np.float32), None)
        image.header["sform_code"] = image.header["qform_code"] = 0
        image.to_filename(tmp_path / f"{i}.nii")
        rows.append(f"{i}.nii,{'ab'[i % 2]}")
    (tmp_path / "a.csv").write_text("\n".join(rows))
    with pytest.raises(BadInput, match=r"--data.orientation trust"):
        CSVData(str(tmp_path / "a.csv"), size=None, folds=3).setup()
    data = CSVData(str(tmp_path / "a.csv"), size=None, folds=3, orientation="trust")
    task = VolumeTask(data.spec, width=4, levels=1)
    assert task.read(str(tmp_path / "0.nii"))["image"].shape == (1, 1, 8, 8, 8)
    task = VolumeTask({**data.spec, "orientation": "check"}, width=4, levels=1)
    with pytest.raises(BadInput, match="does not say how its voxels lie"):
        task.read(str(tmp_path / "0.nii"))


def test_what_little_is_left_is_said_by_name(save_nifti, save_table, caplog):
    """Thick slices that leave few voxels, and a crop that misses the bright part; nothing where all is well."""
    corner = np.zeros((40, 40, 40), np.float32)
    corner[1:9, 1:9, 1:9] = 5
    thick, path = np.diag([1, 1, 6.0, 1]), save_nifti("corner.nii.gz", corner)
    slices = save_nifti("thick.nii.gz", np.random.default_rng(0).normal(size=(32, 32, 6)).astype(np.float32), thick)
    assert look_at(path, wanted=Wanted(None, (20, 20, 20))).odd == (
        "loses 100% of its foreground to the crop; choose a larger --data.size"
    )
    assert look_at(path, wanted=Wanted(None, (40, 40, 40))).odd is None
    assert look_at(path, wanted=Wanted((2.0, 2.0, 2.0), (20, 20, 20))).odd is None
    assert look_at(slices).odd == "has only 32 x 32 x 6 voxels after resampling"
    assert look_at(slices, wanted=Wanted((2.0, 2.0, 2.0))).odd is None
    assert look_at(slices, voxels=False, wanted=Wanted((8.0, 2.0, 2.0))).odd.startswith("has only 4 x 16 x 18 voxels")
    names = ["corner.nii.gz", "thick.nii.gz", *(f"{i}.nii.gz" for i in range(6))]
    for name in names[2:]:
        save_nifti(name, np.random.default_rng(len(name)).normal(size=(16, 16, 16)).astype(np.float32))
    rows = [{"path": name, "label": "ab"[i % 2]} for i, name in enumerate(names)]
    data = CSVData(str(save_table("a.csv", rows)), size=(20, 20, 20), folds=2, on_leak="warn")
    with caplog.at_level("INFO"):
        data.setup()
    assert "a.csv: 2 files to look at" in caplog.text
    assert "  corner.nii.gz: loses 100% of its foreground" in caplog.text


def test_a_sparse_image_has_a_scale():
    """Where nearly all is 0, so are both percentiles: the largest value takes their place."""
    image = torch.zeros(20, 20, 20)
    image[3, 4, 5], image[6, 6, 6] = 100.0, 25.0
    found = percentile_scale(image)
    assert (float(found[3, 4, 5]), float(found[6, 6, 6]), float(found[0, 0, 0])) == (1.0, 0.25, 0.0)
    assert float(percentile_scale(torch.rand(20, 20, 20) * 1e4).max()) == 1.0


def test_explain_does_the_good_ones(tmp_path, save_nifti, save_table):
    rows = [{"path": f"{i}.nii.gz", "label": "ab"[i % 2]} for i in range(6)]
    for row in rows:
        save_nifti(row["path"])
    common = ["--run.root", str(tmp_path / "runs"), "--run.name", "a", "--trainer.accelerator", "cpu"]
    main(["fit", "--model", "tasks.volume.VolumeTask", "--model.width", "4", "--model.levels", "1", "--data",
          "tasks.volume.CSVData", "--data.root", str(save_table("a.csv", rows)), "--data.size", "null", "--data.folds",
          "3", "--trainer.max_epochs", "1", "--outputs.maps", "0", "--outputs.bootstrap", "0", *common])  # fmt: skip
    (best,) = (tmp_path / "runs" / "a").glob("*/checkpoints/best.ckpt")
    inputs = [str(tmp_path / name) for name in ("0.nii.gz", "gone.nii", "1.nii.gz", "a.csv")]
    for command, file in (("explain", "index.html"), ("predict", "predictions.csv")):
        out = tmp_path / command
        with pytest.raises(SystemExit, match=r"these inputs cannot be used:\n.*gone.nii: file does not.*\n.*a.csv: "):
            main([command, "--ckpt_path", str(best), "--input", *inputs, "--output", str(out)])
        assert (out / file).is_file()
        assert (out / "predictions.csv").read_text().count("\n") == 3
