"""Recordings as people have them: names, folders, tables, Kaldi folders; and what is wrong with some of them."""

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from counterpoint.audio_speech.sounds.importers import check_recording, import_kaldi_folder, import_sound_files
from counterpoint.audio_speech.sounds.reading import read_stretch, sound_facts
from counterpoint.audio_speech.sounds.told import NamePattern, captions_of, split_named
from counterpoint.common.data import Manifest, check_leakage
from counterpoint.common.errors import InputError

sys.path.insert(0, str(Path(__file__).parent))
from sound_files import RATE, speech, tone, write


def reasons(report) -> str:
    return "\n".join(f"{r.source}: {r.reason}" for r in report.rejected)


def rows_of(report) -> dict[str, dict]:
    table = Manifest.load(report.manifest)
    return {table.row(i)["id"]: table.row(i) for i in range(len(table))}


def test_names_say_digit_and_speaker(tmp_path):
    report = import_sound_files(speech(tmp_path / "in"), tmp_path / "out", pattern="{digit}_{speaker}_{take}")
    rows = rows_of(report)
    assert report.rows == 24
    assert rows["2_voice3_1"]["digit"] == "2"
    assert rows["2_voice3_1"]["group"] == "voice3"
    assert rows["2_voice3_1"]["seconds"] == 0.35
    table = Manifest.load(report.manifest)
    assert set(table.frame["split"]) == {"train", "val", "test"}
    check_leakage(table)
    check_recording(rows["2_voice3_1"], table.folder)


def test_a_name_of_another_form_is_listed(tmp_path):
    speech(tmp_path / "in", speakers=3, digits=1, takes=1)
    write(tmp_path / "in" / "noise.wav", tone())
    report = import_sound_files(tmp_path / "in", tmp_path / "out", pattern="{digit}_{speaker}_{take}")
    assert report.rows == 3
    assert "noise.wav: its name does not fit --pattern" in reasons(report)


def test_folders_say_speaker_and_chapter(tmp_path):
    for speaker in "abc":
        write(tmp_path / "in" / speaker / "1" / "x.flac", tone())
    rows = rows_of(import_sound_files(tmp_path / "in", tmp_path / "out", folders="speaker/chapter"))
    assert {row["speaker"] for row in rows.values()} == {"a", "b", "c"}
    assert rows["a-1-x"]["chapter"] == "1"


@pytest.mark.parametrize("pattern", ["digit", "{a}{b}", "{a}_{a}", "{a b}"])
def test_patterns_that_part_nothing(pattern):
    with pytest.raises(InputError, match="--pattern"):
        NamePattern(pattern)


def test_a_table_beside_the_recordings(tmp_path):
    folder = speech(tmp_path / "in", speakers=3, digits=1, takes=1)
    lines = ["file_name,label,caption,split", '0_voice0_0.wav,low,"a low, short tone",train',
             "0_voice1_0.wav,low,a tone,validation", "gone.wav,low,nothing,test"]  # fmt: skip
    (folder / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    report = import_sound_files(folder, tmp_path / "out")
    rows = rows_of(report)
    assert rows["0_voice0_0"]["caption"] == "a low, short tone"
    assert rows["0_voice1_0"]["split"] == "val"
    assert "metadata.csv, row 3: gone.wav is no recording below" in reasons(report)
    assert "0_voice2_0.wav: no row of metadata.csv names it" in reasons(report)


def test_rows_of_one_recording_are_segments_or_captions(tmp_path):
    write(tmp_path / "in" / "long.wav", tone(3.0))
    write(tmp_path / "in" / "clip.wav", tone(1.0))
    table = tmp_path / "said.jsonl"
    table.write_text(
        '{"file": "long.wav", "start": 0, "end": 1, "word": "yes"}\n'
        '{"file": "long.wav", "start": 1.5, "end": 2.5, "word": "no"}\n'
        '{"file": "long.wav", "start": 2.5, "end": 9, "word": "late"}\n'
        '{"file": "long.wav", "start": 2, "end": 1, "word": "back"}\n'
        '{"file": "clip.wav", "caption": "a tone"}\n'
        '{"file": "clip.wav", "caption": "a steady tone"}\n'
        '{"file": "clip.wav", "caption": "a tone"}\n'
        '{"file": "clip.wav", "word": "else"}\n',
        encoding="utf-8",
    )
    report = import_sound_files(tmp_path / "in", tmp_path / "out", table=table)
    rows = rows_of(report)
    assert {(r["start"], r["seconds"]) for r in rows.values() if r["word"]} == {(0.0, 1.0), (1.5, 1.0)}
    assert rows["clip"]["caption"] == "a tone\na steady tone"
    said = reasons(report)
    assert "the segment ends at 9 s, the recording at 3 s" in said
    assert "2 to 1 s is no stretch" in said
    assert "row 8: clip.wav stands there again (row 5), and" in said


def test_captions_in_several_columns():
    assert captions_of({"caption_1": "a", "caption_2": "b", "captions": "a\nc", "caption_of": "x"}) == ["a", "b", "c"]


def test_unknown_split_names(tmp_path):
    with pytest.raises(InputError, match="split 'fold1' is none of"):
        split_named("fold1")


def test_kaldi(tmp_path):
    folder = tmp_path / "data"
    for name in "abc":
        write(folder / f"{name}.wav", tone(2.0))
    (folder / "wav.scp").write_text("a a.wav\nb b.wav\nc c.wav\n", encoding="utf-8")
    (folder / "segments").write_text("a-1 a 0.5 1.0\nb-1 b 0 2\nc-1 c 1 1.5\n", encoding="utf-8")
    (folder / "text").write_text("a-1 HELLO WORLD\nb-1\nc-1 YES\n", encoding="utf-8")
    (folder / "utt2spk").write_text("a-1 s1\nb-1 s2\nc-1 s3\n", encoding="utf-8")
    rows = rows_of(import_kaldi_folder(folder, tmp_path / "out"))
    assert rows["a-1"]["transcript"] == "HELLO WORLD"
    assert (rows["a-1"]["start"], rows["a-1"]["seconds"], rows["a-1"]["group"]) == (0.5, 0.5, "s1")
    assert rows["b-1"]["transcript"] is None


def test_kaldi_commands_are_not_run(tmp_path):
    (tmp_path / "wav.scp").write_text(f"a touch {tmp_path}/ran |\n", encoding="utf-8")
    with pytest.raises(InputError, match="a is a command, not a file"):
        import_kaldi_folder(tmp_path, tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def table_of(folder, text: str) -> Path:
    file = folder / "told.csv"
    file.write_text(text, encoding="utf-8")
    return file


class TestTables:
    @pytest.fixture
    def folder(self, tmp_path):
        for name in "abc":
            write(tmp_path / "in" / "sub" / f"{name}.wav", tone(3.0))
        return tmp_path

    def test_capitals_and_other_separators(self, folder):
        table = table_of(folder, "File;Split;Caption\nsub\\a.wav;Test;A tone\nsub/b.wav;train;\nsub/c.wav;;\n")
        report = import_sound_files(folder / "in", folder / "out", table=table)
        rows = {row["id"]: row for row in rows_of(report).values()}
        assert (rows["sub-a"]["split"], rows["sub-a"]["caption"]) == ("test", "A tone")
        assert "1 rows have none and are in no split, sub-c the first" in report.note

    def test_onset_and_offset_offset_and_duration(self, folder):
        table = table_of(folder, "file,onset,offset\na.wav,1,2\n")
        (row,) = rows_of(import_sound_files(folder / "in", folder / "o1", table=table)).values()
        assert (row["start"], row["seconds"]) == (1.0, 1.0)
        table = table_of(folder, "audio_filepath,offset,duration\na.wav,1,0.5\n")
        (row,) = rows_of(import_sound_files(folder / "in", folder / "o2", table=table)).values()
        assert (row["start"], row["seconds"]) == (1.0, 0.5)

    @pytest.mark.parametrize("columns", ["start_ms,end_ms", "begin,end_time", "Start Time,x"])
    def test_times_of_unknown_unit_are_no_guess(self, folder, columns):
        table = table_of(folder, f"file,{columns}\na.wav,0,1000\n")
        with pytest.raises(InputError, match="looks like a segment's time; call the columns `start` and `end`"):
            import_sound_files(folder / "in", folder / "out", table=table)

    def test_two_segments_that_begin_alike(self, folder):
        table = table_of(folder, "file,start,end\na.wav,0,1\na.wav,0,2\n")
        assert set(rows_of(import_sound_files(folder / "in", folder / "out", table=table))) == {
            "sub-a@0-1",
            "sub-a@0-2",
        }

    def test_two_rows_of_one_id(self, folder):
        table = table_of(folder, "file,id\na.wav,x\nb.wav,x\n")
        with pytest.raises(InputError, match=r"told\.csv, rows 1 and 2: both are 'x'"):
            import_sound_files(folder / "in", folder / "out", table=table)

    def test_a_speaker_in_two_splits_is_said(self, folder):
        table = table_of(folder, "file,speaker,split\na.wav,bob,train\nb.wav,bob,test\nc.wav,eve,val\n")
        note = import_sound_files(folder / "in", folder / "out", table=table).note
        assert "1 speaker(s) stand in several splits, bob the first" in note
        assert "Kept together" not in note

    def test_labels_of_several_kinds_are_text(self, folder):
        table = folder / "told.jsonl"
        lines = [
            '{"file": "a.wav", "label": 1}',
            '{"file": "b.wav", "label": "01"}',
            '{"file": "c.wav", "label": true}',
        ]
        table.write_text("\n".join(lines), encoding="utf-8")
        rows = rows_of(import_sound_files(folder / "in", folder / "out", table=table)).values()
        assert sorted(row["label"] for row in rows) == ["01", "1", "True"]

    def test_other_encodings_are_named(self, folder):
        (folder / "told.csv").write_bytes("file,caption\na.wav,dörfer\n".encode("latin-1"))
        with pytest.raises(InputError, match=r"told\.csv: is no UTF-8 text; save it as UTF-8"):
            import_sound_files(folder / "in", folder / "out", table=folder / "told.csv")


class TestDamaged:
    def test_each_is_named_with_its_reason(self, tmp_path):
        folder = tmp_path / "in"
        for i in range(3):
            write(folder / f"good{i}.wav", tone())
        write(folder / "silent.wav", np.zeros(RATE, np.float32))
        write(folder / "empty.wav", np.zeros(0, np.float32))
        write(folder / "nan.wav", np.full(RATE, np.nan, np.float32), subtype="FLOAT")
        whole = write(folder / "cut.wav", tone(2.0)).read_bytes()
        (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
        whole = write(
            folder / "cut.flac", tone(2.0) + 0.1 * np.random.default_rng(0).standard_normal(16000)
        ).read_bytes()
        (folder / "cut.flac").write_bytes(whole[: len(whole) // 2])
        whole = write(folder / "cut.ogg", tone(2.0)).read_bytes()
        (folder / "cut.ogg").write_bytes(whole[: len(whole) * 2 // 3])
        (folder / "text.wav").write_text("no sound", encoding="utf-8")
        (folder / "zero.mp3").write_bytes(b"")
        report = import_sound_files(folder, tmp_path / "out")
        said = reasons(report)
        assert report.rows == 3
        for name, why in (("silent.wav", "is silent"), ("empty.wav", "holds no samples"), ("nan.wav", "not finite"),
                          ("cut.wav", "is cut off"), ("cut.flac", "cut"), ("cut.ogg", "cut off"),
                          ("text.wav", "cannot be decoded"), ("zero.mp3", "cannot be decoded")):  # fmt: skip
            (line,) = [line for line in said.splitlines() if f"{name}:" in line]
            assert why in line or "cannot be decoded" in line, line

    def test_clipped_and_cancelling_ones_are_taken_and_told(self, tmp_path):
        write(tmp_path / "in" / "clip.wav", np.clip(9 * tone(), -1, 1))
        write(tmp_path / "in" / "anti.wav", np.stack([tone(), -0.98 * tone()], 1))
        write(tmp_path / "in" / "good.wav", tone())
        report = import_sound_files(tmp_path / "in", tmp_path / "out")
        assert "clip: many of its samples are at full scale: probably clipped" in report.note
        assert "anti: its channels cancel each other; only channel 1 is used" in report.note
        assert rows_of(report)["anti"]["channel"] == 1

    def test_a_stream_of_unknown_length_is_whole(self, tmp_path):
        path = write(tmp_path / "pipe.wav", tone())
        head = bytearray(path.read_bytes())
        place = head.index(b"data") + 4
        head[place : place + 4] = b"\xff\xff\xff\xff"
        path.write_bytes(bytes(head))
        assert sound_facts(path).seconds == 0.5

    def test_no_recording_in_the_folder(self, tmp_path):
        (tmp_path / "a.txt").write_text("x", encoding="utf-8")
        with pytest.raises(InputError, match=r"no \.wav or"):
            import_sound_files(tmp_path, tmp_path / "out")


class TestStretches:
    def test_any_rate_and_channels(self, tmp_path):
        path = write(tmp_path / "a.flac", np.stack([tone(1.0, rate=44100), tone(1.0, rate=44100)], 1), 44100)
        wave = read_stretch(path, 16000, 0.25, 0.5)
        assert wave.shape == (8000,)
        spectrum = np.abs(np.fft.rfft(wave))
        assert abs(np.fft.rfftfreq(8000, 1 / 16000)[spectrum.argmax()] - 440) < 3

    def test_a_stretch_equals_its_part_of_the_whole(self, tmp_path):
        path = write(tmp_path / "a.wav", np.random.default_rng(0).standard_normal(8000).astype(np.float32) * 0.1,
                     subtype="FLOAT")  # fmt: skip
        whole, _ = soundfile.read(path, dtype="float32")
        np.testing.assert_array_equal(read_stretch(path, RATE, 0.25, 0.5), whole[2000:6000])

    def test_behind_the_end(self, tmp_path):
        path = write(tmp_path / "a.wav", tone())
        with pytest.raises(InputError, match=r"a\.wav: ends after 0\.50 s, before 2\.00 s"):
            read_stretch(path, RATE, 2.0, 1.0)
