"""Strict reading: any encoding, nothing cut, nothing hostile, no number that music does not have."""

import zipfile

import pytest

from counterpoint.audio_speech.scores import read_score
from counterpoint.common.errors import InputError

BODY = "<score-partwise><work><work-title>Größe</work-title></work><part><measure>%s</measure></part></score-partwise>"


@pytest.mark.parametrize(
    ("encoding", "declared"),
    [("utf-8-sig", "UTF-8"), ("iso-8859-1", "ISO-8859-1"), ("utf-16", "UTF-16"), ("utf-8", "UTF-8")],
)
@pytest.mark.parametrize("packed", [False, True])
def test_every_encoding_is_read_alike_also_packed(tmp_path, encoding, declared, packed):
    content = (f'<?xml version="1.0" encoding="{declared}"?>' + BODY % "").encode(encoding)
    path = tmp_path / ("a.mxl" if packed else "a.musicxml")
    if packed:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("META-INF/container.xml", '<container><rootfile full-path="s.xml"/></container>')
            archive.writestr("s.xml", content)
    else:
        path.write_bytes(content)
    assert read_score(path) == '<?xml version="1.0" encoding="UTF-8"?>' + BODY % ""


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.musicxml", (BODY % "")[:60], "cut"),
        ("a.musicxml", BODY % "<beat-type>0</beat-type>", "beat-type is 0"),
        ("a.musicxml", BODY % "<divisions>-1</divisions>", "divisions is '-1'"),
        ("a.musicxml", BODY % '<sound tempo="nan"/>', "sound@tempo"),
        ("a.musicxml", BODY % '<repeat times="1000000"/>', "repeat"),
        ("a.musicxml", '<!DOCTYPE a [<!ENTITY b "c">]>' + BODY % "&b;", "entity"),
        ("a.musicxml", "<html/>", "not MusicXML or MEI"),
        ("a.mei", '<mei><note xml:id="n"/><note xml:id="n"/></mei>', "two elements"),
        ("a.mei", "<mei>" + "<a>" * 300 + "</a>" * 300 + "</mei>", "inside each other"),
        ("a.mxl", "PK\x03\x04 cut", "damaged archive"),
        ("a.musicxml.gz", "any", "a.musicxml.gz: is compressed, unpack it first"),
    ],
)
def test_what_is_refused_and_why(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_score(tmp_path / name)
