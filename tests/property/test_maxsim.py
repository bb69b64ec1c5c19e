"""Multi-vector kernels do what plain arithmetic does: with each kind of instructions, and without compilation."""

import os
import subprocess
import sys
import zlib

import llvmlite.binding as llvm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite import ir

from lexmax.index.kernels import JIT_OFF, dot_emitters, read_only
from lexmax.index.kernels.checksums import SOUND, Checked
from lexmax.index.kernels.dot_products import (
    LANES,
    dot_rows,
    dot_rows_7,
    dot_rows_plain,
    dot_rows_tame,
    pack_lanes,
    tamed,
)
from lexmax.index.kernels.lists import count_documents, list_documents
from lexmax.retrieval.kernels.centroids import (
    STEP,
    best_touched,
    code_maxima,
    code_maxima_plain,
    gather,
    probe,
    row_maxima,
    row_maxima_plain,
)
from lexmax.retrieval.kernels.maxsim import LOWEST, maxima, maxima_plain, score_documents

N_EXAMPLES = int(os.environ.get("LEXMAX_EXAMPLES", "40"))
SHAPES = [(dim, nbits) for dim in (32, 48, 64, 96, 128) for nbits in (1, 2, 4, 8) if dim % (32 // nbits) == 0]
examples = settings(max_examples=N_EXAMPLES, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def lanes(rng, dim):
    """32 vectors of signed bytes, extremes among them, plain and packed."""
    vectors = rng.integers(-127, 128, (LANES, dim)).astype(np.int8)
    vectors[0], vectors[1] = 127, -128
    return vectors, pack_lanes(vectors)[0]


def unpacked(levels, nbits):
    """Codes of each dimension, (n, dim): plane ``c`` of the bytes holds dimensions ``c * width`` onwards."""
    return np.concatenate([levels >> (plane * nbits) & ((1 << nbits) - 1) for plane in range(8 // nbits)], axis=1).astype(
        np.int64
    )  # fmt: skip


@examples
@given(seed=seeds, dim=st.sampled_from([4, 32, 48, 64, 96, 128]), n=st.integers(0, 9))
def test_dot_rows_agree_with_arithmetic(seed, dim, n):
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 256, (n, dim)).astype(np.uint8)
    rows[:1] = 255
    vectors, packed = lanes(rng, dim)
    start = rng.integers(-(1 << 20), 1 << 20, LANES).astype(np.int32)
    out, plain = np.full((n + 1, LANES), 7, np.int32), np.full((n + 1, LANES), 7, np.int32)
    dot_rows(rows, packed, start, out)
    dot_rows_plain(rows, packed, start, plain)
    assert np.array_equal(out[:n], rows.astype(np.int64) @ vectors.T.astype(np.int64) + start)
    assert (out[n] == 7).all()
    assert np.array_equal(plain, out)
    dot_rows_7(rows >> 1, packed, start, out)
    assert np.array_equal(out[:n], (rows >> 1).astype(np.int64) @ vectors.T.astype(np.int64) + start)


@examples
@given(seed=seeds, dim=st.sampled_from([8, 32, 96, 128]), n=st.integers(0, 9))
def test_products_of_tame_vectors_and_their_rest_agree_with_arithmetic(seed, dim, n):
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 128, (n, dim)).astype(np.uint8)
    rows[:1] = 127
    vectors, _ = lanes(rng, dim)
    vectors[1] = np.where(rng.random(dim) < 0.5, vectors[1], 0)
    tame, rest = tamed(vectors)
    start, out = rng.integers(-9, 9, LANES).astype(np.int32), np.empty((n, LANES), np.int32)
    dot_rows_tame(rows, pack_lanes(tame)[0], start, out)
    for lane, d, more in rest:
        out[:, lane] += rows[:, d].astype(np.int32) * more
    assert np.array_equal(out, rows.astype(np.int64) @ vectors.T.astype(np.int64) + start)


def test_few_of_ordinary_weights_are_not_tame():
    weights = np.clip(np.rint(np.random.default_rng(0).normal(0, 38, (64, 384))), -127, 127).astype(np.int8)
    tame, rest = tamed(weights)
    assert 0 < len(rest) < weights.size / 1000
    again = tame.astype(np.int32)
    again[rest[:, 0], rest[:, 1]] += rest[:, 2]
    assert np.array_equal(again, weights)
    assert not len(tamed(tame)[1])


def test_lanes_are_packed_four_dimensions_side_by_side():
    vectors = np.arange(33 * 8).reshape(33, 8).astype(np.int8)
    packed = pack_lanes(vectors)
    assert packed.shape == (2, 2, LANES, 4)
    for number in range(33):
        block, lane = divmod(number, LANES)
        assert packed[block, :, lane].ravel().tolist() == vectors[number].tolist()
    assert not packed[1, :, 1:].any()
    assert pack_lanes(vectors[:0]).shape == (1, 2, LANES, 4)


@examples
@given(seed=seeds, shape=st.sampled_from(SHAPES), n=st.integers(0, 5), first=st.integers(0, 2))
def test_maxima_of_all_bits_agree_with_arithmetic(seed, shape, n, first):
    dim, nbits = shape
    rng = np.random.default_rng(seed)
    n_tokens, n_centroids = first + n + 1, 7
    levels = rng.integers(0, 256, (n_tokens, dim * nbits // 8)).astype(np.uint8)
    codes = rng.integers(0, n_centroids, n_tokens).astype(np.uint16)
    scalars = rng.integers(0, 256, (n_tokens, 2)).astype(np.uint8)
    vectors, packed = lanes(rng, dim)
    dots = rng.integers(-(1 << 22), 1 << 22, (n_centroids, LANES)).astype(np.int32)
    middles = ((1 << nbits) - 1) / 2 * vectors.sum(axis=1, dtype=np.int64)
    means, numbers = rng.standard_normal(LANES), [0.004, 0.9, 0.001, 0.01, 0.0002]
    constants = np.concatenate([means, middles, numbers]).astype(np.float32)
    out, plain = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    maxima(nbits, levels, codes, scalars, first, n, dots, packed, constants, out)
    maxima_plain(nbits, levels, codes, scalars, first, n, dots, packed, constants, plain)
    assert np.array_equal(plain, out)
    if n == 0:
        assert np.all(out == np.float32(LOWEST))
        return
    span = slice(first, first + n)
    inverse, scale = 0.9 + 0.001 * scalars[span, :1], 0.01 + 0.0002 * scalars[span, 1:]
    products = unpacked(levels[span], nbits) @ vectors.T.astype(np.int64) - middles
    values = inverse * (0.004 * dots[codes[span]] + means) + scale * products
    assert np.allclose(out, values.max(axis=0), rtol=1e-5, atol=0.05)


@examples
@given(seed=seeds, n=st.integers(1, 40), n_codes=st.integers(1, 9))
def test_row_and_code_maxima_agree_with_arithmetic(seed, n, n_codes):
    rng = np.random.default_rng(seed)
    dots = rng.integers(-(1 << 31), 1 << 31, (n, LANES)).astype(np.int32)
    first = int(rng.integers(0, n))
    last = int(rng.integers(first + 1, n + 1))
    codes = rng.integers(0, n, n_codes + 2).astype(np.uint16)
    for function in (row_maxima, row_maxima_plain):
        out = np.empty(LANES, np.int32)
        function(dots, first, last, out)
        assert np.array_equal(out, dots[first:last].max(axis=0))
    for function in (code_maxima, code_maxima_plain):
        out = np.empty(LANES, np.int32)
        function(dots, codes, 1, 1 + n_codes, out)
        assert np.array_equal(out, dots[codes[1 : 1 + n_codes]].max(axis=0))


@examples
@given(seed=seeds, n=st.integers(1, 70), few_values=st.booleans())
def test_probe_finds_the_largest_and_ties_by_number(seed, n, few_values):
    rng = np.random.default_rng(seed)
    dots = rng.integers(-3 if few_values else -(1 << 30), 3 if few_values else 1 << 30, (n, LANES)).astype(np.int32)
    n_probe = int(rng.integers(1, n + 1))
    nearest, values = np.empty((LANES, n_probe), np.int32), np.empty((LANES, n_probe), np.int32)
    probe(dots, n_probe, nearest, values)
    for lane in range(LANES):
        expected = np.lexsort((np.arange(n), -dots[:, lane].astype(np.int64)))[:n_probe]
        assert nearest[lane].tolist() == expected.tolist()
        assert values[lane].tolist() == dots[expected, lane].tolist()


def random_documents(rng, n_docs, n_centroids):
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 5, n_docs))]).astype(np.int64)
    return offsets, rng.integers(0, n_centroids, offsets[-1]).astype(np.uint16)


@examples
@given(seed=seeds, n_docs=st.integers(0, 30), n_centroids=st.integers(1, 12))
def test_lists_agree_with_sets(seed, n_docs, n_centroids):
    offsets, codes = random_documents(np.random.default_rng(seed), n_docs, n_centroids)
    starts = count_documents(offsets, codes, n_centroids)
    listed = list_documents(offsets, codes, starts)
    for centroid in range(n_centroids):
        expected = [d for d in range(n_docs) if centroid in codes[offsets[d] : offsets[d + 1]]]
        assert listed[starts[centroid] : starts[centroid + 1]].tolist() == expected
    assert starts[-1] == len(listed)


@examples
@given(seed=seeds, n_docs=st.integers(1, 30), n_blocks=st.integers(1, 3), filtered=st.booleans())
def test_gather_agrees_with_dictionaries(seed, n_docs, n_blocks, filtered):
    """Each query token adds once to a document: what its best probed centroid is above its worst; however many blocks."""
    rng = np.random.default_rng(seed)
    n_centroids, n_probe, base = 9, 4, 5
    offsets, codes = random_documents(rng, n_docs, n_centroids)
    starts = count_documents(offsets, codes, n_centroids)
    listed = list_documents(offsets, codes, starts)
    allowed = rng.random(n_docs) < 0.5 if filtered else np.empty(0, np.bool_)
    stamps, totals = np.full(base + n_docs, 1000, np.int32), np.full(base + n_docs, -9, np.int32)
    touched, n_touched = np.zeros(base + n_docs, np.int32), 0
    expected: dict[int, int] = {}
    for block in range(n_blocks):
        nearest = np.stack([rng.permutation(n_centroids)[:n_probe] for _ in range(LANES)]).astype(np.int32)
        values = -np.sort(-rng.integers(-500, 500, (LANES, n_probe)), axis=1).astype(np.int32)
        scales = np.where(rng.random(LANES) < 0.2, 0, 16 * STEP).astype(np.float32)
        n_touched = gather(
            nearest, values, scales, starts, listed, base, allowed, 1000, 1001 + LANES * block,
            stamps, totals, touched, n_touched,
        )  # fmt: skip
        for d in range(n_docs):
            if filtered and not allowed[d]:
                continue
            for lane in np.flatnonzero(scales).tolist():
                gains = [16 * (values[lane, i] - values[lane, -1]) + 1
                         for i in range(n_probe) if nearest[lane, i] in codes[offsets[d] : offsets[d + 1]]]  # fmt: skip
                if gains:
                    expected[base + d] = expected.get(base + d, 0) + max(gains)
    assert sorted(touched[:n_touched].tolist()) == sorted(expected)
    assert {d: int(totals[d]) for d in touched[:n_touched].tolist()} == expected


@examples
@given(seed=seeds, n_docs=st.integers(1, 60), highest=st.sampled_from([1, 50, 5000, 1 << 30]), n=st.integers(1, 60))
def test_the_best_touched_are_kept_and_few_more(seed, n_docs, highest, n):
    rng = np.random.default_rng(seed)
    totals = rng.integers(1, highest + 1, 100).astype(np.int32)
    touched = rng.permutation(100)[:n_docs].astype(np.int32)
    kept = best_touched(touched, n_docs, totals, n)
    assert np.all(np.diff(kept) > 0)
    assert set(kept) <= set(touched)
    assert len(kept) >= min(n, n_docs)
    edge = np.sort(totals[touched])[::-1][min(n, n_docs) - 1]
    slack = max(1, highest // 2048)  # a bin's width
    assert set(touched[totals[touched] >= edge]) <= set(kept)
    assert np.all(totals[kept] > edge - slack)


def test_documents_without_tokens_score_nothing():
    rng = np.random.default_rng(0)
    _, packed = lanes(rng, 32)
    offsets, scores = np.array([0, 0, 2, 2], np.int64), np.zeros(3, np.float32)
    content = read_only(np.ones(2 * 32 + 2 * 2, np.uint8))
    checked = Checked(content, read_only(np.array([zlib.crc32(content.data)], np.uint32)), np.zeros(2, np.uint8))
    score_documents(
        checked, np.array([0, 1, 2], np.int32), offsets, 8, content[:64].reshape(2, 32), np.zeros(2, np.uint16),
        content[64:].reshape(2, 2), np.ones((1, LANES), np.int32), packed, np.ones(69, np.float32),
        np.ones(LANES, np.float32), scores,
    )  # fmt: skip
    assert scores[0] == scores[2] == 0
    assert scores[1] != 0
    assert checked.states.tolist() == [SOUND, 0]


AVX2 = "+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt"
OTHER_LEVELS = {
    "plain": {"NUMBA_CPU_NAME": "generic"},
    "avx2": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": AVX2},
    "avxvnni": {"NUMBA_CPU_NAME": "alderlake", "NUMBA_CPU_FEATURES": f"{AVX2},+avxvnni"},
}
NEEDED = {"plain": [], "avx2": ["avx2", "fma", "f16c", "bmi2"], "avxvnni": ["avxvnni"]}


@pytest.mark.skipif(JIT_OFF or "NUMBA_CPU_NAME" in os.environ, reason="this is the run that it would start")
@pytest.mark.parametrize("level", OTHER_LEVELS)
def test_the_same_with_the_instructions_of_other_processors(level, tmp_path):
    features, environment, chosen = llvm.get_host_cpu_features(), {**os.environ, "LEXMAX_EXAMPLES": "20"}, ""
    if all(features.get(feature, False) for feature in NEEDED[level]):
        environment |= OTHER_LEVELS[level]
    elif level == "avxvnni" and features.get("avx512vnni", False) and features.get("avx512vl", False):
        environment["NUMBA_CACHE_DIR"] = str(tmp_path)  # AVX-512 has the instruction of 256 bits too
        chosen = "dots.LEVEL, dots.ROW_BITS = 'avxvnni', 8;"
    else:
        pytest.skip("this processor has other instructions")
    code = (
        f"import sys, pytest; from lexmax.index.kernels import dot_emitters as dots; {chosen} assert dots.LEVEL == sys.argv[2];"
        "sys.exit(pytest.main([sys.argv[1], '-k', 'agree', '-p', 'no:cacheprovider']))"
    )
    command = [sys.executable, "-c", code, __file__, level]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout


def assembly(monkeypatch, level, triple, features, nbits, used=None):
    """What LLVM makes of the products of a tile of rows for another processor."""
    monkeypatch.setattr(dot_emitters, "LEVEL", level)
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = ir.Module("products")
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [dot_emitters.I64] * 5), "products")
    builder = ir.IRBuilder(function.append_basic_block())
    *rows, n_words, packed, out = function.args
    zero = (dot_emitters.constant(0), dot_emitters.constant(0))
    for number, sums in enumerate(dot_emitters.add_dots(builder, zero, rows, n_words, packed, nbits, used)):
        for half in range(2):
            at = builder.add(out, dot_emitters.I64(128 * number + 64 * half))
            dot_emitters.store(builder, sums[half], at)
    builder.ret_void()
    target = llvm.Target.from_triple(triple).create_target_machine(cpu="", features=features, opt=3)
    parsed = llvm.parse_assembly(str(module))
    parsed.triple = triple
    passes = llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(parsed, passes)
    return target.emit_assembly(parsed)


ARM = "aarch64-unknown-linux-gnu"


@pytest.mark.parametrize(
    ("level", "triple", "features", "nbits", "wanted", "unwanted"),
    [
        ("i8mm", ARM, "+neon,+i8mm,+dotprod", 8, "usdot\tv", "mul\tv"),
        ("i8mm", ARM, "+neon,+i8mm,+dotprod", 2, "usdot\tv", "mul\tv"),
        ("dotprod", ARM, "+neon,+dotprod", 8, "sdot\tv", "mul\tv"),
        ("dotprod", ARM, "+neon,+dotprod", 2, "sdot\tv", "mul\tv"),
        ("plain", ARM, "+neon", 8, "mla\tv", "sdot"),
        ("avxvnni", "x86_64-unknown-linux-gnu", "+avx2,+avxvnni", 8, "vpdpbusd", "vpmul"),
        ("avx2", "x86_64-unknown-linux-gnu", "+avx2", 2, "vpmaddubsw", "vpmul"),
        ("avx2", "x86_64-unknown-linux-gnu", "+avx2", 8, "vpmaddwd", "vpmul"),
    ],
)
def test_instructions_of_other_processors(monkeypatch, level, triple, features, nbits, wanted, unwanted):
    found = assembly(monkeypatch, level, triple, features, nbits)
    assert wanted in found
    assert unwanted not in found


def test_rows_of_seven_bits_take_one_product_with_avx2(monkeypatch):
    found = assembly(monkeypatch, "avx2", "x86_64-unknown-linux-gnu", "+avx2", 8, used=7)
    assert found.count("vpmaddubsw") == 8
