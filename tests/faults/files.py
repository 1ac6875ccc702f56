"""A good small file of every kind that the suite reads, made where it is needed."""

import gzip
import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np

MUSICXML = (
    '<?xml version="1.0"?><score-partwise version="3.1"><part-list><score-part id="P1"><part-name>a</part-name>'
    '</score-part></part-list><part id="P1"><measure number="1"><attributes><divisions>1</divisions><time><beats>4'
    "</beats><beat-type>4</beat-type></time><clef><sign>G</sign><line>2</line></clef></attributes>"
    + "<note><pitch><step>C</step><octave>4</octave></pitch><duration>1</duration><type>quarter</type></note>" * 4
    + "</measure></part></score-partwise>"
)
MEI = (
    '<?xml version="1.0" encoding="UTF-8"?><mei xmlns="http://www.music-encoding.org/ns/mei" meiversion="5.0"><music>'
    '<body><mdiv><score><scoreDef meter.count="4" meter.unit="4"><staffGrp><staffDef n="1" lines="5" clef.shape="G" '
    'clef.line="2"/></staffGrp></scoreDef><section><measure n="1"><staff n="1"><layer n="1">'
    + "".join(f'<note pname="{p}" oct="4" dur="4"/>' for p in "cdef")
    + "</layer></staff></measure></section></score></mdiv></body></music></mei>"
)
SPICE = ".subckt inv a y vss\nM1 y a vss vss nmos w=1u l=1u\nC1 a y 1f\n.ends\nX1 in out 0 inv\nC2 in out 2f\n"
SPECTRE = (
    "subckt inv (a y vss)\nparameters w=1u\nM1 (y a vss vss) nmos w=w l=1u\nends inv\n"
    "X1 (in out 0) inv\nC2 in out 2f\n"
)
SPEF = (
    '*SPEF "IEEE 1481-1998"\n*DESIGN "t"\n*DIVIDER /\n*DELIMITER :\n*C_UNIT 1 FF\n*R_UNIT 1 OHM\n'
    "*NAME_MAP\n*1 in\n*2 out\n"
    "*D_NET *1 1.5\n*CONN\n*P *1 I\n*CAP\n1 *1:1 0.5\n2 *1:1 *2:1 1.0\n*RES\n1 *1:1 *1:2 3.0\n*END\n"
    "*D_NET *2 1.0\n*CAP\n1 *2:1 *1:1 1.0\n*END\n"
)
DSPF = (
    "*|DSPF 1.3\n*|DIVIDER /\n*|GROUND_NET VSS\n.SUBCKT t a b VSS\n*|NET a 1.5FF\n*|P (a I 0 1 2)\n"
    "*|I (M1:G M1 G I 0 1 2)\n"
    "C1 a:1 VSS 0.5f\nC2 a:1 b:1 1.0f\nR1 a a:1 2.0\n*|NET b 1.0FF\n*|S (b:1 1 2)\nR2 b b:1 1\n"
    "* Instance Section\nM1 b M1:G VSS VSS nch w=1u l=1u\n.ENDS\n"
)
SDF = """
     RDKit          2D

  2  1  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 C   0  0  0  0  0  0  0  0  0  0  0  0
    1.2990    0.7500    0.0000 O   0  0  0  0  0  0  0  0  0  0  0  0
  1  2  1  0
M  END
>  <act>  (1)
1.5

$$$$
"""
TS = "@problemName a\n@timeStamps false\n@classLabel true a b\n@data\n1,2,3:a\n3,2,1:b\n"
TABLE = "time,I [mV]\n" + "".join(f"{i / 50},{i % 7}\n" for i in range(100))
MANIFEST = [{"id": f"s{i}", "group": f"g{i}", "split": "train", "value": i / 7} for i in range(8)]


def text(content: str):
    return lambda path: path.write_text(content)


def edf(path: Path) -> None:
    def field(value, width):
        return str(value).ljust(width).encode()

    head = b"".join([field(0, 8), field("X", 80), field("X", 80), field("01.01.20", 8), field("00.00.00", 8),
                     field(512, 8), field("", 44), field(4, 8), field(1, 8), field(1, 4)])  # fmt: skip
    values = ("I", 16), ("", 80), ("mV", 8), (-1, 8), (1, 8), (-32768, 8), (32767, 8), ("", 80), (50, 8), ("", 32)
    path.write_bytes(head + b"".join(field(*v) for v in values) + np.arange(200, dtype="<i2").tobytes())


def bids(path: Path) -> None:
    """A BIDS recording of 4 s and what stands beside it."""
    edf(path if path.suffix == ".edf" else path.with_name("sub-01_task-rest_eeg.edf"))
    path.with_name("sub-01_task-rest_events.tsv").write_text("onset\tduration\ttrial_type\n0.5\t1\tblink\n")
    path.with_name("sub-01_task-rest_channels.tsv").write_text("name\ttype\tunits\tstatus\nI\tEEG\tmV\tgood\n")
    path.with_name("participants.tsv").write_text("participant_id\tage\nsub-01\t33\n")


def ptbxl(path: Path) -> None:
    wfdb(path.with_name("r.hea"))
    path.with_name("ptbxl_database.csv").write_text(
        "ecg_id,patient_id,scp_codes,strat_fold,filename_lr,filename_hr\n1,7.0,\"{'NORM': 100.0}\",3,r,r\n"
    )
    path.with_name("scp_statements.csv").write_text(",diagnostic,diagnostic_class\nNORM,1.0,NORM\nSR,,\n")


def night(path: Path) -> None:
    """A Sleep-EDF night, and a hypnogram of 4 s."""
    edf(path.with_name("SC4001E0-PSG.edf"))
    path.with_name("SC4001EC-Hypnogram.edf").write_bytes(hypnogram())


def hypnogram() -> bytes:
    def field(value, width):
        return str(value).ljust(width).encode()

    head = b"".join([field(0, 8), field("X X X X", 80), field("Startdate 01-JAN-2020 X X X", 80), field("01.01.20", 8),
                     field("00.00.00", 8), field(512, 8), field("EDF+C", 44), field(1, 8), field(0, 8),
                     field(1, 4)])  # fmt: skip
    values = (("EDF Annotations", 16), ("", 80), ("", 8), (-1, 8), (1, 8), (-32768, 8), (32767, 8), ("", 80), (32, 8),
              ("", 32))  # fmt: skip
    stages = b"+0\x14\x14\x00+0\x154\x14Sleep stage W\x14\x00"
    return head + b"".join(field(*v) for v in values) + stages.ljust(64, b"\0")


def told_records(path: Path) -> None:
    wfdb(path.with_name("r.hea"))
    path.write_text("record,label\nr,N\n")


def wfdb(path: Path) -> None:
    path.with_suffix(".hea").write_text("r 1 50 200\nr.dat 16 200 16 0 0 0 0 I\n")
    path.with_suffix(".dat").write_bytes(np.arange(200, dtype="<i2").tobytes())


def midi(path: Path) -> None:
    events = b"".join(bytes([0, 0x90, p, 80, 0x60, 0x80, p, 0]) for p in (60, 62, 64)) + bytes([0, 0xFF, 0x2F, 0])
    head = b"MThd" + (6).to_bytes(4, "big") + bytes([0, 0, 0, 1, 0, 0x60])
    path.write_bytes(head + b"MTrk" + len(events).to_bytes(4, "big") + events)


def mxl(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        box = '<container><rootfiles><rootfile full-path="a.xml"/></rootfiles></container>'
        archive.writestr("META-INF/container.xml", box)
        archive.writestr("a.xml", MUSICXML)


def sound(path: Path) -> None:
    import soundfile

    soundfile.write(path, np.sin(np.arange(260_000) / 10).astype(np.float32), 22050)


def kaldi(path: Path) -> None:
    for name in "ab":
        sound(path.with_name(f"{name}.wav"))
    path.write_text("a a.wav\nb b.wav\n", encoding="utf-8")
    path.with_name("utt2spk").write_text("a one\nb two\n", encoding="utf-8")


def told_sounds(path: Path) -> None:
    for name in "ab":
        sound(path.with_name(f"{name}.wav"))
    path.write_text("file_name,label,caption\na.wav,x,a tone\nb.wav,y,a tone\n", encoding="utf-8")


def strip(path: Path) -> None:
    from PIL import Image

    Image.fromarray((np.arange(160 * 300) % 251).reshape(160, 300).astype(np.uint8)).save(path)


def npz(path: Path) -> None:
    np.savez(path, x=np.arange(100.0).reshape(50, 2) % 7, fs=50.0)


def parquet(path: Path) -> None:
    import pandas as pd

    pd.DataFrame({"time": np.arange(100) / 50, "I [mV]": np.arange(100.0) % 7}).to_parquet(path)


def node_arrays() -> dict[str, np.ndarray]:
    edges = np.array([[0, 1, 2, 3, 4], [1, 2, 3, 4, 0]])
    return {"x": np.eye(5, 3, dtype=np.float32) + 1, "edge_index": edges, "y": np.array([0, 1, 0, 1, 0])}


def node_npz(path: Path) -> None:
    np.savez(path, **node_arrays())


def node_pt(path: Path) -> None:
    import torch
    from torch_geometric.data import Data

    torch.save(Data(**{name: torch.from_numpy(value) for name, value in node_arrays().items()}), path)


def hetero_folder(path: Path) -> None:
    """Six papers, three authors and two subjects, with features and labels of the papers."""
    import scipy.sparse as sp

    path.with_name("pa.txt").write_text("".join(f"{i}\t{i % 3}\n{i}\t{(i + 1) % 3}\n" for i in range(6)))
    path.with_name("ps.txt").write_text("".join(f"{i}\t{i % 2}\n" for i in range(6)))
    sp.save_npz(path.with_name("p_feat.npz"), sp.csr_matrix(np.eye(6, 4, dtype=np.float32) + 1))
    np.save(path.with_name("labels.npy"), np.array([0, 1, 0, 1, 0, 1]))
    np.save(path.with_name("train_2.npy"), np.array([0, 1]))


def hetero_pt(path: Path) -> None:
    import torch
    from torch_geometric.data import HeteroData

    data = HeteroData()
    data["paper"].x, data["paper"].y = torch.eye(6, 4) + 1, torch.tensor([0, 1, 0, 1, 0, 1])
    data["author"].num_nodes = 3
    data["paper", "by", "author"].edge_index = torch.tensor([[0, 1, 2, 3, 4, 5], [0, 1, 2, 0, 1, 2]])
    torch.save(data, path)


PLANETOID = ("x", "y", "tx", "ty", "allx", "ally", "graph", "test.index")


def planetoid(path: Path) -> None:
    """The eight files of a set of six nodes, of which two train and two test."""
    import scipy.sparse as sp

    x, y = sp.csr_matrix(np.eye(6, 4, dtype=np.float32)), np.eye(2, dtype=int)[[0, 1, 0, 1, 0, 1]]
    parts = {"x": x[:2], "y": y[:2], "tx": x[4:], "ty": y[4:], "allx": x[:4], "ally": y[:4]}
    parts["graph"] = {i: [(i + 1) % 6, (i + 5) % 6] for i in range(6)}
    name = path.name.split(".")[1]
    for part, value in parts.items():
        path.with_name(f"ind.{name}.{part}").write_bytes(pickle.dumps(value, protocol=2))
    path.with_name(f"ind.{name}.test.index").write_text("4\n5\n")


ARFF = "@relation a\n@attribute t1 numeric\n@attribute t2 numeric\n@attribute c {1,2}\n@data\n1,2,1\n3,4,2\n5,6,1\n"
TSV = "".join(f"{1 + i % 2}\t{i}\t{i + 1}\t{i + 2}\n" for i in range(6))


def npy(path: Path) -> None:
    np.save(path, (np.arange(100.0).reshape(50, 2) % 7).astype(np.float32))


VECTORS = np.arange(24.0).reshape(8, 3) % 5


def vectors_npy(path: Path) -> None:
    np.save(path, VECTORS)
    table = "id,label,split\n" + "".join(f"s{i},{i % 2},{'train' if i < 4 else 'test'}\n" for i in range(8))
    path.with_name("facts.csv").write_text(table)


def vectors_parquet(path: Path) -> None:
    import pandas as pd

    facts = {"label": [i % 2 for i in range(8)], "split": ["train"] * 4 + ["test"] * 4}
    pd.DataFrame({"id": [f"s{i}" for i in range(8)], "vector": list(VECTORS), **facts}).to_parquet(path)


def vectors_table(path: Path) -> None:
    vectors_npy(path.with_name("v.npy"))
    path.write_bytes(path.with_name("facts.csv").read_bytes())


MOLECULES = ("CCO", "c1ccccc1O", "CC(C)O", "CCN", "C1CCCCC1", "CC=O", "CCCl", "OCCO", "CCC", "c1ccncc1")


def molecule_table(path: Path) -> None:
    """A manifest of ten molecules."""
    splits = [*(["train"] * 6), "val", "val", "test", "test"]
    rows = [f"m{i},{s},{splits[i]},{i % 2}" for i, s in enumerate(MOLECULES)]
    path.write_text("\n".join(["id,smiles,split,y", *rows, ""]))


def three_scores(path: Path) -> None:
    """A manifest of three tunes, of which one trains, with their scores."""
    for name in (path, path.with_name("v.musicxml"), path.with_name("t.musicxml")):
        name.write_text(MUSICXML)
    rows = ["a,a.musicxml,train", "v,v.musicxml,val", "t,t.musicxml,test"]
    path.with_name("manifest.csv").write_text("\n".join(["id,score,split", *rows, ""]))


def scan() -> np.ndarray:
    """Fat, muscle, bone and air in HU."""
    values = np.array([-1000, -100, 45, 300], dtype=np.int16)
    return values[np.arange(8 * 8 * 8) // 3 % 4].reshape(8, 8, 8) + (np.arange(512) % 7).reshape(8, 8, 8).astype("i2")


def nifti(path: Path) -> None:
    import nibabel

    nibabel.save(nibabel.Nifti1Image(scan(), np.diag([1.0, 1.0, 2.0, 1.0])), path)


def volume_nrrd(path: Path) -> None:
    import nrrd

    space = {"space": "left-posterior-superior", "space directions": np.eye(3), "space origin": np.zeros(3)}
    nrrd.write(str(path), scan(), space)


def dicom(path: Path) -> None:
    """Eight slices of one series, the one named among them."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    for k in range(8):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = f"1.2.3.{k + 1}"
        file = path if k == 3 else path.with_name(f"{path.stem}.s{k}.dcm")
        d = FileDataset(str(file), {}, file_meta=meta, preamble=bytes(128))
        d.SOPClassUID, d.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        d.SeriesInstanceUID, d.StudyInstanceUID, d.PatientID, d.Modality = "1.2.4", "1.2.5", "p", "CT"
        d.ImageOrientationPatient, d.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 2.0 * k]
        d.PixelSpacing, d.Rows, d.Columns, d.SamplesPerPixel = [1, 1], 8, 8, 1
        d.PhotometricInterpretation, d.PixelRepresentation = "MONOCHROME2", 0
        d.BitsAllocated, d.BitsStored, d.HighBit, d.RescaleSlope, d.RescaleIntercept = 16, 16, 15, 1, -1024
        d.PixelData = (scan()[:, :, k].T + 1024).astype("<u2").tobytes()
        pydicom.dcmwrite(file, d, enforce_file_format=True)


def radiograph(path: Path) -> None:
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = "1.2.840.10008.5.1.4.1.1.1", ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = "1.2.3.1"
    d = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    d.SOPClassUID, d.SOPInstanceUID, d.PatientID, d.Modality = meta.MediaStorageSOPClassUID, "1.2.3.1", "p", "CR"
    d.Rows, d.Columns, d.SamplesPerPixel, d.PhotometricInterpretation = 20, 24, 1, "MONOCHROME1"
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 12, 11, 0
    d.WindowCenter, d.WindowWidth = 2000, 3000
    d.PixelData = (np.arange(480) * 37 % 4096).astype("<u2").tobytes()
    pydicom.dcmwrite(path, d, enforce_file_format=True)


SETTINGS = (
    "temperature: 0.2\nratio: 0.3\nviews: [drop, mask]\noptim:\n  lr: 0.001\ntrain:\n  batch_size: 4\n  seed: 3\n"
)


INTERACTIONS = "user_id,item_id,timestamp,rating\n" + "".join(f"u,i{i},{60 * i},{1 + i % 5}\n" for i in range(12))
ATOMIC = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + "".join(
    f"u\ti{i}\t{1 + i % 5}\t{60 * i}\n" for i in range(12)
)
LABELLED = "userID\titemID\trating\tx_label\n" + "".join(f"0\t{i}\t1\t{i % 3}\n" for i in range(12))
SEQUENCES = "u " + " ".join(f"i{i}" for i in range(12)) + "\n"
CATALOGUE = "item_id:token\ttitle:token_seq\tyear:float\n" + "".join(f"i{i}\ta title\t{1990 + i}\n" for i in range(12))


def interactions_parquet(path: Path) -> None:
    import pandas as pd

    rows = {"user_id": ["u"] * 12, "item_id": [f"i{i}" for i in range(12)], "timestamp": [60.0 * i for i in range(12)]}
    pd.DataFrame(rows).to_parquet(path)


def interactions_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps({"user": "u", "item": f"i{i}", "time": 60 * i}) + "\n" for i in range(12)))


def edges(path: Path) -> None:
    np.save(path, np.array([[0] * 12, list(range(12))]))


def catalogue(path: Path) -> None:
    path.with_suffix(".inter").write_text(ATOMIC)
    path.write_text(CATALOGUE)


def item_vectors(path: Path) -> None:
    path.with_suffix(".inter").write_text(LABELLED)
    np.save(path, np.arange(36.0, dtype=np.float32).reshape(12, 3))


def raster(path: Path) -> None:
    """A stacked optical file whose tags and names say all that an import asks for."""
    import rasterio
    from rasterio.transform import Affine

    data = (200 + np.arange(2 * 64 * 64) % 3000).reshape(2, 64, 64).astype(np.uint16)
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 500_000, 0, -10, 5_000_000)}
    with rasterio.open(path, "w", driver="GTiff", count=2, height=64, width=64, dtype="uint16", **place) as target:
        target.write(data)
        target.update_tags(PROCESSING_BASELINE="03.01", datetime="2021-07-10T10:00:00")
        for i, name in enumerate(("B03", "B04"), start=1):
            target.set_band_description(i, name)


def stac_item(path: Path) -> None:
    """A STAC item, and the raster that it names."""
    raster(path.with_name("a.tif"))
    asset = {"href": "a.tif", "eo:bands": [{"name": "B03"}, {"name": "B04"}], "proj:shape": [64, 64]}
    said = {"datetime": "2021-07-10T10:00:00Z", "platform": "sentinel-2a", "s2:processing_baseline": "03.01"}
    item = {"type": "Feature", "stac_version": "1.0.0", "id": "a", "properties": said, "assets": {"data": asset}}
    path.write_text(json.dumps(item))


def sdf_gz(path: Path) -> None:
    path.write_bytes(gzip.compress(SDF.encode(), mtime=0))


def manifest(path: Path) -> None:
    from counterpoint.common.data import Manifest

    Manifest.from_rows(MANIFEST, path.parent, {"synthetic": "made"}).save(path)


def facts(path: Path) -> None:
    manifest(path.with_name(path.name.removesuffix(".meta.json")))


def shards(path: Path) -> None:
    from counterpoint.common.data.shards import write_shards

    buffer = io.BytesIO()
    np.save(buffer, np.arange(4.0))
    facts = json.dumps({"group": "g"}).encode()
    write_shards([({"id": f"s{i}"}, {"npy": buffer.getvalue(), "json": facts}) for i in range(3)], path.parent)
