"""Synthesis and analysis: the right pitch at the right time, from waveform to bands."""

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from counterpoint.audio_speech.configs import Rendition, SpectrogramConfig
from counterpoint.audio_speech.features import analyse, log_filterbank, resample_wave, spectrogram
from counterpoint.audio_speech.sounds.reading import read_audio
from counterpoint.audio_speech.synth import TIMBRES, synthesise
from counterpoint.common.errors import InputError

RATE = 22050


def note(onset: float, offset: float, pitch: int) -> np.ndarray:
    return np.array([[onset, offset, float(pitch), 0.0]])


@pytest.mark.parametrize("name", TIMBRES)
def test_a_note_has_its_fundamental_and_only_multiples_of_it(name):
    wave = synthesise(note(0.0, 2.0, 57), Rendition(name))[: 2 * RATE]
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    frequency = np.fft.rfftfreq(len(wave), 1 / RATE)
    harmonic = np.abs(frequency / 220 - np.round(frequency / 220)) < 0.05
    assert (spectrum[harmonic] ** 2).sum() > 0.95 * (spectrum**2).sum()
    near = (frequency > 200) & (frequency < 240)
    assert abs(frequency[near][spectrum[near].argmax()] - 220) < 3


def test_tempo_divides_every_time_and_nothing_else():
    slow = synthesise(note(1.0, 2.0, 69), Rendition("flute", 0.5))
    fast = synthesise(note(1.0, 2.0, 69), Rendition("flute", 2.0))
    for wave, tempo in ((slow, 0.5), (fast, 2.0)):
        loud = np.flatnonzero(np.abs(wave) > 0.1)
        assert abs(loud[0] / RATE - 1.0 / tempo) < 0.1
        assert abs(loud[-1] / RATE - 2.0 / tempo) < 0.15
        assert len(wave) == round((2.0 / tempo + 1.0) * RATE)


def test_a_seed_gives_the_same_sound_and_another_seed_another():
    notes = np.concatenate([note(0, 1, 60), note(0.5, 1.5, 64)])
    a, b, c = (synthesise(notes, Rendition("piano"), seed=s) for s in (1, 1, 2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert np.abs(a).max() <= 1.0


def test_unknown_timbre_and_impossible_tempo_are_refused():
    with pytest.raises(InputError, match="choose from piano"):
        synthesise(note(0, 1, 60), Rendition("kazoo"))
    with pytest.raises(InputError, match="not positive"):
        synthesise(note(0, 1, 60), Rendition("piano", -1.0))
    with pytest.raises(InputError, match="timbre@tempo"):
        Rendition.parse("piano@fast")


def test_the_paper_s_front_end_has_92_bands_of_unit_area():
    bank = log_filterbank(SpectrogramConfig())
    assert bank.shape == (1024, 92)
    assert np.allclose(bank.sum(axis=0), 1.0, atol=1e-5)
    centres = bank.argmax(axis=0) * 22050 / 2048
    assert np.all(np.diff(centres) > 0)
    assert 30 <= centres[0] < 60
    assert 5000 < centres[-1] <= 6000
    high = centres[centres > 1500]
    assert np.allclose(np.diff(np.log2(high)), 1 / 16, atol=0.02), "sixteen bands an octave where bins allow it"


@given(st.floats(200.0, 5000.0))
@settings(max_examples=20)
def test_a_sine_lights_the_band_of_its_frequency(frequency):
    config = SpectrogramConfig()
    t = np.arange(RATE) / RATE
    frames = spectrogram((0.5 * np.sin(2 * np.pi * frequency * t)).astype(np.float32), config)
    band = frames[len(frames) // 2].argmax()
    centre = log_filterbank(config)[:, band].argmax() * 22050 / 2048
    assert abs(np.log2(centre / frequency)) < 1.2 / 16 + 11 / frequency


def test_a_click_is_loudest_in_the_frame_of_its_time():
    config = SpectrogramConfig()
    for second in (0.0, 0.5, 1.23):
        wave = np.zeros(2 * RATE, dtype=np.float32)
        wave[round(second * RATE)] = 1.0
        frames = spectrogram(wave, config)
        assert frames.sum(axis=1).argmax() == round(second * config.frames_per_second)


def test_the_spectrogram_is_log10_of_one_plus_the_filtered_magnitude():
    config = SpectrogramConfig()
    wave = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    frames = spectrogram(wave, config)
    centre = 2 * config.hop
    window = np.zeros(2048)
    cut = wave[centre - 1024 : centre + 1024]
    window[: len(cut)] = cut
    magnitude = np.abs(np.fft.rfft(window * np.hanning(2048)))[:1024]
    assert np.allclose(frames[2], np.log10(1 + magnitude @ log_filterbank(config)), atol=1e-4)
    assert spectrogram(np.zeros(0, dtype=np.float32)).shape == (0, 92)


def test_any_sound_file_is_read_as_mono_at_the_asked_rate(tmp_path):
    t = np.arange(44100) / 44100
    stereo = np.stack([np.sin(2 * np.pi * 440 * t), np.zeros_like(t)], axis=1).astype(np.float32)
    for suffix in ("wav", "flac", "ogg", "mp3"):
        soundfile.write(tmp_path / f"a.{suffix}", stereo, 44100)
        wave = read_audio(tmp_path / f"a.{suffix}", RATE)
        assert abs(len(wave) - RATE) < 0.1 * RATE
        middle = wave[5000:15000]
        assert abs(middle.std() - 0.5 / np.sqrt(2)) < 0.03
    assert np.array_equal(resample_wave(wave, RATE, RATE), wave)


def test_broken_audio_says_why(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"RIFF but no more")
    with pytest.raises(InputError, match="cannot be decoded"):
        read_audio(tmp_path / "a.wav")
    soundfile.write(tmp_path / "b.wav", np.zeros(0), 8000)
    with pytest.raises(InputError, match="no samples"):
        read_audio(tmp_path / "b.wav")
    with pytest.raises(InputError, match="no such file"):
        read_audio(tmp_path / "c.wav")


def test_level_polarity_and_silence_of_a_recording(tmp_path):
    wave = synthesise(note(0.0, 2.0, 69), Rendition("piano"))
    soundfile.write(tmp_path / "full.wav", wave, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "quiet.wav", 0.01 * wave, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "inverted.wav", np.stack([wave, -wave], axis=1), RATE, subtype="FLOAT")
    full = analyse(read_audio(tmp_path / "full.wav"))
    for name in ("quiet", "inverted"):
        assert np.allclose(analyse(read_audio(tmp_path / f"{name}.wav")), full, atol=1e-3), name
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    with pytest.raises(InputError, match="silent"):
        read_audio(tmp_path / "silent.wav")
    wave[7] = np.nan
    soundfile.write(tmp_path / "nan.wav", wave, RATE, subtype="FLOAT")
    with pytest.raises(InputError, match="1 of .* not finite"):
        read_audio(tmp_path / "nan.wav")
