"""Near duplicates, splits and the overlap with the runtime, against plain set arithmetic."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.hashing import MAX_BYTES
from trainer.data.neardup import THRESHOLD, WORDS, cluster, jaccard, leak_rate, shingles
from trainer.data.overlap import WIDTH, runtime_overlap, sampled_shingles
from trainer.data.source import Document, cut
from trainer.data.split import DEFAULT_FRACTIONS, SPLITS, Splits, assign_splits


def quiet(stage: str, done: int, total: int | None, unit: str) -> None:
    pass


def words_of(rng: random.Random, count: int) -> list[str]:
    return [f"w{rng.randrange(5000)}" for _ in range(count)]


def naive_shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[\w\u0080-\U0010ffff]+", text)
    width = min(WORDS, max(len(words), 1))
    return {tuple(words[i : i + width]) for i in range(len(words) - width + 1)}


@given(st.lists(st.sampled_from(["a", "bb", "ü_1", "世", " ", "\n", "-", "(", "0x"]), max_size=60).map("".join))
def test_shingles_are_the_distinct_word_5_grams(text: str) -> None:
    assert len(shingles(text)) == max(len(naive_shingles(text)), 1)


def test_shingles_do_not_depend_on_layout_or_on_the_hashed_piece() -> None:
    text = " ".join(words_of(random.Random(0), 200))
    assert np.array_equal(shingles(text), shingles(text.replace(" ", ",\n    ")))
    long = " ".join(words_of(random.Random(1), MAX_BYTES // 3))
    assert jaccard(shingles(long), shingles("word " + long)) > 0.999


def test_jaccard_equals_sets() -> None:
    rng = random.Random(2)
    words = words_of(rng, 300)
    first, second = " ".join(words), " ".join(words[:200] + words_of(rng, 100))
    a, b = naive_shingles(first), naive_shingles(second)
    assert jaccard(shingles(first), shingles(second)) == pytest.approx(len(a & b) / len(a | b))


def make_pairs(count: int, kept: float, seed: int) -> list[str]:
    """Pairs of texts that share a beginning: position 2i and 2i + 1."""
    rng = random.Random(seed)
    texts = []
    for _ in range(count):
        words = words_of(rng, 120)
        cut = int(kept * len(words))
        texts += [" ".join(words), " ".join(words[:cut] + words_of(rng, len(words) - cut))]
    return texts


def test_near_duplicates_meet_in_one_split_and_others_do_not_cluster() -> None:
    near = make_pairs(150, 0.87, seed=3)  # Jaccard about 0.75
    far = make_pairs(150, 0.75, seed=4)  # about 0.58
    documents = [Document(f"{index:05d}", text) for index, text in enumerate(near + far)]
    sets = [shingles(document.text) for document in documents]
    assert all(jaccard(*sets[i : i + 2]) >= THRESHOLD for i in range(0, 300, 2))
    assert all(jaccard(*sets[i : i + 2]) < THRESHOLD for i in range(300, 600, 2))
    roots = cluster(sets, quiet)
    assert roots == [index - index % 2 for index in range(300)] + list(range(300, 600))
    fractions = {"val": 0.2, "test": 0.2, "decoy": 0.1}
    splits = assign_splits(documents, sets, fractions, quiet).names
    assert all(splits[i] == splits[i + 1] for i in range(0, 300, 2))
    assert any(splits[i] != splits[i + 1] for i in range(300, 600, 2))
    held_out = [own for own, split in zip(sets, splits, strict=True) if split in ("val", "test")]
    train = [own for own, split in zip(sets, splits, strict=True) if split == "train"]
    assert leak_rate(held_out, train, quiet) == 0.0


def test_chains_are_one_cluster() -> None:
    words = words_of(random.Random(5), 400)
    chain = [" ".join(words[20 * i : 20 * i + 200]) for i in range(8)]  # neighbours at 0.8, ends disjoint
    assert cluster([shingles(text) for text in chain], quiet) == [0] * 8


def test_leak_rate_counts_what_plain_comparison_counts() -> None:
    pairs = [make_pairs(1, kept, seed=int(1000 * kept)) for kept in np.linspace(0.6, 1.0, 60)]
    held_out = [shingles(first) for first, _ in pairs]
    train = [shingles(second) for _, second in pairs]
    plain = [any(jaccard(own, other) >= THRESHOLD for other in train) for own in held_out]
    assert 0 < sum(plain) < 60
    assert leak_rate(held_out, train, quiet) == pytest.approx(sum(plain) / 60)


def test_split_shares_come_out_and_adding_documents_moves_none() -> None:
    rng = random.Random(6)
    documents = [Document(f"{index:05d}", " ".join(words_of(rng, 12))) for index in range(3000)]
    sets = [shingles(document.text) for document in documents]
    splits = assign_splits(documents, sets, DEFAULT_FRACTIONS, quiet).names
    for split, share in DEFAULT_FRACTIONS.items():
        assert abs(splits.count(split) / 3000 - share) < 4 * (share / 3000) ** 0.5
    assert assign_splits(documents[::2], sets[::2], DEFAULT_FRACTIONS, quiet) == Splits(splits[::2], "document")


def texts(num_long: int, num_short: int) -> list[Document]:
    """Long ones of six pieces, which have nothing in common, and short ones of one; sorted as a corpus is."""
    rng = random.Random(7)
    long = [Document(f"l{index:05d}", "\n".join(words_of(rng, 30))) for index in range(num_long)]
    short = [Document(f"s{index:05d}", " ".join(words_of(rng, 5))) for index in range(num_short)]
    return [piece for text in (*long, *short) for piece in cut(text, 30)]


@pytest.mark.parametrize(
    ("num_long", "num_short", "by"), [(200, 600, "document"), (200, 100, "piece"), (1, 4, "piece")]
)
def test_pieces_of_a_text_stay_together_where_there_are_texts_enough(num_long: int, num_short: int, by: str) -> None:
    documents = texts(num_long, num_short)
    splits = assign_splits(documents, [shingles(each.text) for each in documents], DEFAULT_FRACTIONS, quiet)
    assert splits.by == by and len(splits.names) == len(documents)
    of_text: dict[str, set[str]] = {}
    for document, split in zip(documents, splits.names, strict=True):
        of_text.setdefault(document.parent or document.id, set()).add(split)
    assert all(len(found) == 1 for found in of_text.values()) == (by == "document" or num_long == 1)
    assert by == "piece" or {split for found in of_text.values() for split in found} == set(SPLITS)


def test_a_text_that_dwarfs_the_others_is_split_by_pieces() -> None:
    giant = Document("a", "\n".join(words_of(random.Random(8), 2000)))
    documents = [*cut(giant, 30), *texts(0, 700)]
    sets = [shingles(each.text) for each in documents]
    assert assign_splits(documents, sets, DEFAULT_FRACTIONS, quiet).by == "piece"


def test_copies_of_pieces_join_their_texts() -> None:
    """A text is where its copy is, whole."""
    rng = random.Random(9)
    shared = " ".join(words_of(rng, 40))
    documents = []
    for name in "ab":
        own = [" ".join(words_of(rng, 40)) for _ in range(3)]
        documents += [Document(f"{name}#{number:04d}", text, name) for number, text in enumerate([*own, shared])]
    many = [*documents, *texts(0, 2000)]
    splits = assign_splits(many, [shingles(each.text) for each in many], DEFAULT_FRACTIONS, quiet)
    assert splits.by == "document" and len(set(splits.names[:8])) == 1


def prose(seed: int, size: int) -> str:
    return " ".join(words_of(random.Random(seed), size // 5))


def test_overlap_is_the_share_of_held_out_text_in_the_runtime(tmp_path: Path) -> None:
    held_out = prose(7, 40_000)
    (tmp_path / "pkg").mkdir()
    copied = held_out[: len(held_out) // 4]
    (tmp_path / "pkg" / "module.py").write_text(prose(8, 5000) + copied.replace(" ", "\n\t") + prose(9, 5000))
    (tmp_path / "other.md").write_text(prose(10, 50_000))
    overlap = runtime_overlap([held_out], [prose(6, 9000)], [tmp_path], quiet)
    assert overlap.share == pytest.approx(0.25, abs=0.03)
    assert overlap.files == (str(tmp_path / "pkg" / "module.py"),)


def test_what_every_run_is_given_does_not_count(tmp_path: Path) -> None:
    """The header of a licence is in the training text too, and in files all over the machine."""
    licence, secret = prose(30, 2000), prose(31, 2000)
    (tmp_path / "a.py").write_text(licence + prose(32, 3000))
    held_out = licence + secret
    assert runtime_overlap([held_out], [], [tmp_path], quiet).share > 0.3
    assert runtime_overlap([held_out], [prose(33, 5000) + licence], [tmp_path], quiet).share < 0.01
    (tmp_path / "b.py").write_text(secret)
    assert runtime_overlap([held_out], [licence], [tmp_path], quiet).files[0] == str(tmp_path / "b.py")


def test_overlap_ignores_short_idioms_and_binary_files(tmp_path: Path) -> None:
    idiom = 'if __name__ == "__main__":\n    sys.exit(main())\n'
    held_out = [prose(seed, 3000) + idiom for seed in range(11, 15)]
    (tmp_path / "a.py").write_text(idiom + prose(20, 3000) + idiom)
    (tmp_path / "b.so").write_bytes(b"\x7fELF\0\0" + "".join(held_out).encode())
    (tmp_path / "b.bin").write_bytes(b"\x7fELF\0\0" + "".join(held_out).encode())
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path)
    overlap = runtime_overlap(held_out, [], [tmp_path, tmp_path / "missing"], quiet)
    assert overlap.share == 0.0 and overlap.num_shingles > 100


def test_overlap_finds_text_across_the_pieces_that_are_hashed_at_once(tmp_path: Path) -> None:
    held_out = prose(21, 4000)
    stripped = len("".join(held_out.split()))
    filler = "x" * (MAX_BYTES - stripped // 2)
    (tmp_path / "big.txt").write_text(filler + held_out + filler)
    assert runtime_overlap([held_out], [], [tmp_path / "big.txt"], quiet).share == 1.0


def test_about_one_shingle_in_eight_is_sampled() -> None:
    text = prose(22, 200_000).encode()
    positions = len(text.translate(None, b" ")) - WIDTH + 1
    assert len(sampled_shingles(text)) / positions == pytest.approx(1 / 8, rel=0.35)
    assert len(sampled_shingles(b"short")) == 0
