"""Free Spoken Digit Dataset (Jackson et al.): 3,000 utterances of ten digits by six speakers, 8 kHz.

A sample is the log energy above the floor in 40 mel bands over 49 frames of one second, float32 [1, 49, 40].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.data.base import Dataset, Metric, Preprocessing, SealedSplit, Split
from pipeline.data.cache import cached_array
from pipeline.data.files import check_labels, damaged, read_npz
from pipeline.data.splits import fingerprint

LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SAMPLE_RATE_HZ = 8000
CLIP = SAMPLE_RATE_HZ
WINDOW = 320  # 40 ms
HOP = 160  # 20 ms: (8000 - 320) / 160 + 1 = 49 frames
FFT = 512
BANDS = 40
FRAMES = (CLIP - WINDOW) // HOP + 1
LOWEST_HZ = 20.0
# Energy is of PCM in -1 … 1; what is below the floor is silence.
FLOOR = 1e-6
# Recordings 0 to 4 of each digit and speaker are the source's test split; the next five are our search split.
TEST_BELOW = 5
SEARCH_BELOW = 10
# Mean and standard deviation of the features of recordings 10 and up.
PREPROCESSING = Preprocessing(mean=(4.368,), std=(5.370,))


def load(root: Path, seed: int) -> Dataset:
    """`spoken_digits.npz`. Splits go by the recording's number, so `seed` changes nothing."""
    path = root / "spoken_digits.npz"
    table = read_npz(path, ("labels", "index", "offsets"))
    labels = check_labels(path, table["labels"], len(table["offsets"]) - 1, len(LABELS))
    index = table["index"]
    if index.shape != labels.shape:
        raise damaged(path, f"{len(labels)} utterances with {list(index.shape)} recording numbers")

    def split(name: str, members: np.ndarray) -> Split:
        if not members.any():
            raise damaged(path, f"no recording is in its {name} split")
        features = cached_array(path, f"logmel49x40-{name}", lambda: _features(path, members))
        return Split(features, labels[members])

    train = split("train", index >= SEARCH_BELOW)
    search = split("search", (index >= TEST_BELOW) & (index < SEARCH_BELOW))
    return Dataset(
        name="spoken-digits",
        metric=Metric.ACCURACY,
        train=train,
        search=search,
        test=SealedSplit(lambda: split("test", index < TEST_BELOW)),
        preprocessing=PREPROCESSING,
        labels=LABELS,
        augmentation="shift",
        fingerprint=fingerprint("spoken-digits", train, search),
    )


def _features(path: Path, members: np.ndarray) -> np.ndarray:
    arrays = read_npz(path, ("pcm", "offsets"))
    pcm, offsets = arrays["pcm"], arrays["offsets"]
    if pcm.dtype != np.int16 or offsets[0] != 0 or offsets[-1] != len(pcm) or (np.diff(offsets) <= 0).any():
        raise damaged(path, f"its offsets do not span its {len(pcm)} samples of int16")
    filters = mel_filters()
    clips = [pcm[offsets[number] : offsets[number + 1]] for number in np.flatnonzero(members)]
    return np.stack([log_mel(clip, filters) for clip in clips])[:, None]


def log_mel(pcm: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """ln(1 + energy / floor) in mel bands of the middle second, float32 [49, 40]; silence is 0.

    That silence is 0 matters: what shifts a sample fills the edge with zeros.

    Args:
        pcm: int16 [samples]; longer than a second is cut, shorter is padded with silence, on both sides.
        filters: what `mel_filters` gives.
    """
    signal = pcm.astype(np.float32) / 32768.0
    start = max(0, (len(signal) - CLIP) // 2)
    signal = signal[start : start + CLIP]
    before = (CLIP - len(signal)) // 2
    signal = np.pad(signal, (before, CLIP - len(signal) - before))
    frames = np.lib.stride_tricks.sliding_window_view(signal, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW), FFT)) ** 2
    features: np.ndarray = np.log1p(power @ filters.T / FLOOR).astype(np.float32)
    return features


def mel_filters() -> np.ndarray:
    """Triangles on the mel scale, mel = 2595 log10(1 + f/700) (O'Shaughnessy, 1987), [40, 257]."""
    edges_mel = np.linspace(_mel(LOWEST_HZ), _mel(SAMPLE_RATE_HZ / 2), BANDS + 2)
    edges = 700.0 * (10.0 ** (edges_mel / 2595.0) - 1.0)
    bins = np.fft.rfftfreq(FFT, 1 / SAMPLE_RATE_HZ)
    low, peak, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (bins - low) / (peak - low)
    falling = (high - bins) / (high - peak)
    filters: np.ndarray = np.maximum(0.0, np.minimum(rising, falling))
    return filters


def _mel(frequency_hz: float) -> float:
    return float(2595.0 * np.log10(1.0 + frequency_hz / 700.0))
