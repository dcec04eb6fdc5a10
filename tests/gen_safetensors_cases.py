#!/usr/bin/env python3
"""Writes testdata/st: small .safetensors files whose name says the verdict (ok_* is read, bad_* is refused).

    python3 tests/gen_safetensors_cases.py [--reference]

Deterministic, standard library only. --reference also writes ok_reference_writer.st, the same tensors as our writer's test makes,
with the safetensors package (the file in the repository was made with version 0.8.0).

Every verdict was compared with the safetensors package 0.8.0. It reads, and we refuse by decision: bad_dup_key_same and
bad_dup_key_among_many (two readers could see two different files), bad_rank9 and bad_rank_10000 (our tensors have at most 8
dimensions), bad_dim_2_48 (its schema says so, its code does not), bad_entry_array (a struct given as a list), bad_name_too_long
and bad_*_nul (names are C strings of at most 4096 bytes here; cutting one short would be worse than refusing)."""
import json
import os
import struct
import sys

OUT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "testdata", "st")
MADE = set()


def raw(name, data):
    assert name not in MADE, name
    MADE.add(name)
    with open(os.path.join(OUT, name + ".st"), "wb") as f:
        f.write(data)


def case(name, header, data=b""):
    """header: dict (written compactly), str or bytes; data: bytes, or a number of zero bytes."""
    if isinstance(header, dict):
        header = json.dumps(header, separators=(",", ":"))
    if isinstance(header, str):
        header = header.encode()
    if isinstance(data, int):
        data = bytes(data)
    raw(name, struct.pack("<Q", len(header)) + header + data)


def T(shape, offsets, dtype="F32", **more):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


A = '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
BITS = {"BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64,
        "I64": 64, "F64": 64, "C64": 64, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8, "F4": 4,
        "F6_E2M3": 6, "F6_E3M2": 6}


def good():
    case("ok_basic", {"a": T([2, 2], [0, 16])}, 16)
    case("ok_no_tensors", {})
    case("ok_no_tensors_meta", {"__metadata__": {"format": "pt"}})
    case("ok_meta_brace", {"__metadata__": {"format": "p}t"}, "a": T([1], [0, 4])}, 4)
    case("ok_meta_escape", r'{"__metadata__":{"note":"say \"hi\"\n"},' + A + "}", 4)
    case("ok_meta_null", '{"__metadata__":null,' + A + "}", 4)
    case("ok_meta_empty", '{"__metadata__":{},' + A + "}", 4)
    case("ok_meta_last", "{" + A + ',"__metadata__":{"format":"pt"}}', 4)
    case("ok_meta_many", {"__metadata__": {"k%d" % i: "v%d" % i for i in range(40)}, "a": T([1], [0, 4])}, 4)
    case("ok_unicode_escape_name", r'{"caf\u00e9":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 4)
    case("ok_surrogate_pair_name", r'{"\ud83d\ude00":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 4)
    case("ok_utf8_name", {"\u5c42.\u00e9": T([1], [0, 4])}, 4)
    case("ok_empty_name", {"": T([1], [0, 4])}, 4)
    case("ok_slash_name", {"../../etc/x": T([1], [0, 4])}, 4)
    case("ok_name_4096", {"n" * 4096: T([1], [0, 4])}, 4)
    case("ok_trailing_spaces", "{" + A + "}   ", 4)
    case("ok_trailing_newlines", "{" + A + "}\n\r\t ", 4)
    case("ok_leading_space", " \n{" + A + "}", 4)
    case("ok_spaces_inside", '{ "a" : { "dtype" : "F32" ,\n "shape" : [ 1 ] , "data_offsets" : [ 0 , 4 ] } }', 4)
    case("ok_unaligned_data", "{" + A + "} ", 4)
    case("ok_unknown_field", {"a": T([1], [0, 4], extra={"deep": [1, {"x": None}]})}, 4)
    case("ok_field_order", '{"a":{"data_offsets":[0,4],"shape":[1],"dtype":"F32"}}', 4)
    case("ok_empty_tensor", {"a": T([2, 0], [0, 0])})
    case("ok_empty_among_others", {"a": T([1], [0, 4]), "z": T([0], [4, 4]), "y": T([0, 5], [0, 0]), "b": T([1], [4, 8])}, 8)
    case("ok_empty_huge_dim", {"a": T([0, 2**48 - 1], [0, 0])})
    case("ok_scalar", {"a": T([], [0, 4])}, 4)
    case("ok_rank5", {"a": T([1, 1, 1, 1, 2], [0, 8])}, 8)
    case("ok_rank8", {"a": T([1] * 8, [0, 4])}, 4)
    case("ok_offset_order", {"c": T([1], [8, 12]), "a": T([1], [4, 8]), "b": T([1], [0, 4])}, 12)
    case("ok_1100_tensors", {"t%04d" % i: T([1], [i, i + 1], "U8") for i in range(1100)}, 1100)
    case("ok_nan_inf_data", {"a": T([4], [0, 16])}, struct.pack("<4f", float("nan"), float("inf"), -float("inf"), -0.0))
    at, header = 0, {}
    for t, bits in BITS.items():
        header["t_" + t] = T([2, 4], [at, at + bits], t)
        at += bits
    case("ok_all_dtypes", header, bytes(range(256))[:256] + bytes(at - 256))
    case("ok_f4_even", {"a": T([6], [0, 3], "F4")}, 3)


def bad_structure():
    raw("bad_empty_file", b"")
    raw("bad_short_file", b"\x10\0\0")
    raw("bad_only_length", struct.pack("<Q", 0))
    raw("bad_header_length_2_63", struct.pack("<Q", 2**63) + b"{}")
    raw("bad_header_length_max", b"\xff" * 8 + b"{}")
    raw("bad_header_length_over_limit", struct.pack("<Q", 100000001) + b"{}")
    raw("bad_header_length_at_limit", struct.pack("<Q", 100000000) + b"{}")
    raw("bad_header_length_1000", struct.pack("<Q", 1000) + b"{}")
    raw("bad_header_length_one_more", struct.pack("<Q", 3) + b"{}")
    raw("bad_header_length_big_endian", struct.pack(">Q", 2) + b"{}")
    case("bad_header_empty_with_data", b"", 8)
    case("bad_truncated_json", '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]', 4)
    case("bad_nul_padding", "{" + A + "}\0\0", 4)
    case("bad_nul_before", "\0{" + A + "}", 4)
    case("bad_trailing_garbage", "{" + A + "}xyz", 4)
    case("bad_two_objects", "{" + A + "}{}", 4)
    case("bad_bom", b"\xef\xbb\xbf{" + A.encode() + b"}", 4)
    case("bad_comment", "{/* x */" + A + "}", 4)
    case("bad_trailing_comma", "{" + A + ",}", 4)
    case("bad_single_quotes", "{" + A.replace('"', "'") + "}", 4)
    case("bad_not_object", "[1,2]")
    case("bad_null", "null")
    case("bad_string", '"a"')
    case("bad_number", "7")
    case("bad_deep_nesting", "[" * 3000)
    case("bad_deep_field", '{"a":{"x":' + "[" * 200 + "]" * 200 + ',"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 4)
    case("bad_invalid_utf8", b'{"\xff":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 4)
    case("bad_overlong_utf8", b'{"\xc0\xaf":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 4)
    case("bad_lone_surrogate", r'{"\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 4)
    case("bad_control_in_name", b'{"a\nb":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 4)
    case("bad_name_nul", r'{"a\u0000b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 4)
    case("bad_name_too_long", {"n" * 4097: T([1], [0, 4])}, 4)
    case("bad_dup_key", "{" + A + ',"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', 8)
    case("bad_dup_key_same", "{" + A + "," + A + "}", 4)
    case("bad_dup_key_escaped", "{" + A + r',"\u0061":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', 8)
    many = ",".join('"t%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % i for i in range(20))
    case("bad_dup_key_among_many", "{" + many + ',"t3":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}')
    case("bad_dup_dtype", '{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 4)
    case("bad_dup_metadata", '{"__metadata__":{},"__metadata__":{},' + A + "}", 4)
    case("bad_meta_nonstring", '{"__metadata__":{"n":1},' + A + "}", 4)
    case("bad_meta_nested", '{"__metadata__":{"n":{"m":"x"}},' + A + "}", 4)
    case("bad_meta_array", '{"__metadata__":["x"],' + A + "}", 4)
    case("bad_meta_null_value", '{"__metadata__":{"n":null},' + A + "}", 4)
    case("bad_meta_nul", r'{"__metadata__":{"n":"x\u0000y"},' + A + "}", 4)


def bad_entries():
    case("bad_empty_entry", '{"a":{}}')
    case("bad_entry_array", '{"a":["F32",[1],[0,4]]}', 4)
    case("bad_entry_null", '{"a":null}')
    case("bad_missing_offsets", '{"a":{"dtype":"F32","shape":[1]}}', 4)
    case("bad_missing_shape", '{"a":{"dtype":"F32","data_offsets":[0,4]}}', 4)
    case("bad_missing_dtype", '{"a":{"shape":[1],"data_offsets":[0,4]}}', 4)
    case("bad_unknown_dtype", {"a": T([1], [0, 4], "Q4")}, 4)
    case("bad_dtype_lower_case", {"a": T([1], [0, 4], "f32")}, 4)
    case("bad_dtype_prefix", {"a": T([1], [0, 4], "F3")}, 4)
    case("bad_dtype_longer", {"a": T([1], [0, 4], "F32 ")}, 4)
    case("bad_dtype_nul", r'{"a":{"dtype":"F32\u0000","shape":[1],"data_offsets":[0,4]}}', 4)
    case("bad_dtype_number", '{"a":{"dtype":32,"shape":[1],"data_offsets":[0,4]}}', 4)
    case("bad_shape_number", '{"a":{"dtype":"F32","shape":1,"data_offsets":[0,4]}}', 4)
    case("bad_shape_string_dim", '{"a":{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}}', 4)
    case("bad_shape_float_dim", '{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}', 4)
    case("bad_shape_exponent_dim", '{"a":{"dtype":"F32","shape":[1e0],"data_offsets":[0,4]}}', 4)
    case("bad_shape_bool_dim", '{"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}', 4)
    case("bad_shape_nested", '{"a":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}}', 4)
    case("bad_negative_zero_dim", '{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}')
    case("bad_neg_dim", {"a": T([-1], [0, 4])}, 4)
    case("bad_two_neg_dims", {"a": T([-1, -1], [0, 4])}, 4)
    case("bad_huge_dim", '{"a":{"dtype":"F32","shape":[1e400],"data_offsets":[0,4]}}', 4)
    case("bad_dim_2_48", {"a": T([2**48, 0], [0, 0], "U8")})
    case("bad_dim_2_64", {"a": T([2**64 + 1], [0, 4])}, 4)
    case("bad_rank9", {"a": T([1] * 9, [0, 4])}, 4)
    case("bad_rank_10000", {"a": T([1] * 10000, [0, 4])}, 4)
    case("bad_offsets_one", {"a": T([1], [0])}, 4)
    case("bad_offsets_three", {"a": T([1], [0, 4, 8])}, 4)
    case("bad_offsets_strings", {"a": T([1], ["0", "4"])}, 4)
    case("bad_offsets_null", {"a": T([1], None)}, 4)
    case("bad_float_offset", '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4.5]}}', 4)
    case("bad_float_whole_offset", '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4.0]}}', 4)
    case("bad_neg_offset", {"a": T([1], [-4, 0])}, 4)
    case("bad_offset_2_64", {"a": T([1], [2**64, 2**64 + 4])}, 4)
    case("bad_offset_wraps", {"a": T([4], [2**64 - 8, 8])}, 16)
    case("bad_reversed", {"a": T([1], [4, 0])}, 4)
    case("bad_size_mismatch", {"a": T([100], [0, 4])}, 4)
    case("bad_size_too_large", {"a": T([1], [0, 8])}, 8)
    case("bad_scalar_size", {"a": T([], [0, 0])})
    case("bad_empty_with_bytes", {"a": T([0], [0, 4])}, 4)
    case("bad_overflow_shape", {"a": T([2**62, 4], [0, 0], "BF16")})
    case("bad_overflow_shape2", {"a": T([2, 2**63 - 1], [0, 16], "I32")}, 16)
    case("bad_overflow_to_small", {"a": T([2**32, 2**32, 4], [0, 16])}, 16)
    case("bad_overflow_bytes", {"a": T([2**47], [0, 2**50], "F64")}, 8)
    case("bad_overflow_before_zero", {"a": T([2**40, 2**40, 0], [0, 0])})
    case("bad_f4_odd", {"a": T([5], [0, 2], "F4")}, 2)
    case("bad_f6_bits", {"a": T([2], [0, 1], "F6_E2M3")}, 1)


def bad_cover():
    case("bad_oob", {"a": T([4], [0, 16])}, 4)
    case("bad_oob_by_one", {"a": T([4], [0, 16])}, 15)
    case("bad_overlap", {"a": T([1], [0, 4]), "b": T([1], [0, 4])}, 4)
    case("bad_overlap_partly", {"a": T([2], [0, 8]), "b": T([2], [4, 12])}, 12)
    case("bad_overlap_inside", {"a": T([4], [0, 16]), "b": T([1], [4, 8])}, 16)
    case("bad_empty_inside", {"a": T([2], [0, 8]), "b": T([0], [4, 4])}, 8)
    case("bad_empty_outside", {"a": T([1], [0, 4]), "b": T([0], [100, 100])}, 4)
    case("bad_hole", {"a": T([1], [0, 4]), "b": T([1], [8, 12])}, 12)
    case("bad_hole_at_start", {"a": T([1], [4, 8])}, 8)
    case("bad_extra_tail", {"a": T([1], [0, 4])}, 20)
    case("bad_extra_tail_one", {"a": T([1], [0, 4])}, 5)
    case("bad_data_without_tensors", {}, 4)
    case("bad_no_data", {"a": T([1], [0, 4])})
    polyglot = b"PK\x05\x06" + bytes(18)
    case("bad_polyglot_zip", {"a": T([1], [0, 4])}, bytes(4) + polyglot)


def reference():
    """Two names of every type that the package's serialize() takes, in an order of its own choosing."""
    import ctypes
    import safetensors
    names = {"BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "F16": "float16", "BF16": "bfloat16",
             "U32": "uint32", "I32": "int32", "F32": "float32", "U64": "uint64", "I64": "int64", "F64": "float64",
             "C64": "complex64", "F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn", "F8_E8M0": "float8_e8m0fnu",
             "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E4M3FNUZ": "float8_e4m3fnuz"}
    specs, alive = {}, []
    for i, (t, name) in enumerate(names.items()):
        for j, head in enumerate(["model.z.", 'model.a"\\\u00e9\u007f.']):
            n = 3 * (i % 4 + 1) * BITS[t] // 8
            data = ctypes.create_string_buffer(bytes((7 * k + i + j) % (2 if t == "BOOL" else 256) for k in range(n)), n)
            alive.append(data)
            specs[head + t] = safetensors.TensorSpec(dtype=name, shape=[3, i % 4 + 1], data_ptr=ctypes.addressof(data), data_len=n)
    raw("ok_reference_writer", bytes(safetensors.serialize(specs, {"format": "pt"})))


if __name__ == "__main__":
    os.makedirs(OUT, exist_ok=True)
    good()
    bad_structure()
    bad_entries()
    bad_cover()
    if "--reference" in sys.argv[1:]:
        reference()
    print("%d files in %s" % (len(MADE), os.path.relpath(OUT)))
