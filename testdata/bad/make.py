#!/usr/bin/env python3
"""Writes the hostile model directories beside it, and cases.txt: NAME | exit code | text that the message must hold.

Code 0 marks a directory that must load. Everything is generated: no file here comes from anybody else. Run it again after a change:
    python3 testdata/bad/make.py
"""
import json, os, shutil, struct

HERE = os.path.dirname(os.path.abspath(__file__))
CASES = []

BASE = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 16, "max_position_embeddings": 32, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "tie_word_embeddings": True, "hidden_act": "silu", "torch_dtype": "bfloat16", "bos_token_id": 1,
    "eos_token_id": 2,
}
FLA = {
    "architectures": ["GatedDeltaNetForCausalLM"], "model_type": "gated_deltanet", "hidden_size": 8, "intermediate_size": 12,
    "num_hidden_layers": 3, "num_heads": 2, "head_dim": 4, "expand_v": 1, "use_gate": True, "use_short_conv": False, "vocab_size": 16,
    "norm_eps": 1e-5, "tie_word_embeddings": True, "attn": {"layers": [1], "num_heads": 2, "num_kv_heads": 1, "rope_theta": 10000.0},
}
GLA = {
    "architectures": ["GLAForCausalLM"], "model_type": "gla", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
    "num_heads": 2, "expand_k": 1, "expand_v": 1, "vocab_size": 16, "norm_eps": 1e-5, "tie_word_embeddings": True, "attn": None,
}


def llama_tensors(c, layers=1, bias=False):
    C, F, V = 8, 12, 16
    t = {"model.embed_tokens.weight": [V, C], "model.norm.weight": [C]}
    for l in range(layers):
        p = f"model.layers.{l}."
        t.update({p + "input_layernorm.weight": [C], p + "post_attention_layernorm.weight": [C], p + "self_attn.q_proj.weight": [C, C],
                  p + "self_attn.k_proj.weight": [4, C], p + "self_attn.v_proj.weight": [4, C], p + "self_attn.o_proj.weight": [C, C],
                  p + "mlp.gate_proj.weight": [F, C], p + "mlp.up_proj.weight": [F, C], p + "mlp.down_proj.weight": [C, F]})
        if bias:
            t.update({p + "self_attn.q_proj.bias": [C], p + "self_attn.k_proj.bias": [4], p + "self_attn.v_proj.bias": [4]})
    return t


def numbers(n, seed):
    """n BF16 numbers in (-0.5, 0.5), the same everywhere."""
    out, x = bytearray(), seed * 2654435761 % 2**32 or 1
    for _ in range(n):
        x = (1103515245 * x + 12345) % 2**31
        out += struct.pack("<f", (x / 2**31 - 0.5))[2:]
    return bytes(out)


def safetensors(shapes, dtype="BF16", data=None, tail=b"", header=None):
    head, body, at = {"__metadata__": {"format": "pt"}}, b"", 0
    for i, (name, shape) in enumerate(sorted(shapes.items())):
        n = 1
        for s in shape:
            n *= s
        raw = (data or {}).get(name) or numbers(n, 1 if name in ("lm_head.weight", "model.embed_tokens.weight") else i + 2)
        if dtype in ("I64", "F64"):
            raw = b"\0" * (8 * n)
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(raw)]}
        body, at = body + raw, at + len(raw)
    text = header or json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body + tail


def case(name, code, text, config=None, raw_config=None, files=None):
    d = os.path.join(HERE, name)
    os.makedirs(d)
    if config is not None or raw_config is not None:
        with open(os.path.join(d, "config.json"), "wb") as f:
            f.write(raw_config if raw_config is not None else (json.dumps(config, indent=1) + "\n").encode())
    for path, data in (files or {}).items():
        with open(os.path.join(d, path), "wb") as f:
            f.write(data)
    CASES.append(f"{name}|{code}|{text}")


def config(name, text, base=BASE, drop=(), code=3, **change):
    c = {k: v for k, v in base.items() if k not in drop}
    c.update(change)
    case(name, code, text, c)


for old in os.listdir(HERE):
    if os.path.isdir(os.path.join(HERE, old)) and not old.startswith("tok_"):
        shutil.rmtree(os.path.join(HERE, old))

# ---- config.json: what it says cannot be -------------------------------------------------------------------------------------
case("config_missing", 4, "config.json", files={"model.safetensors": safetensors(llama_tensors(BASE))})
case("config_empty", 3, "config.json", raw_config=b"")
case("config_truncated", 3, "config.json", raw_config=json.dumps(BASE).encode()[:100])
case("config_not_json", 3, "config.json", raw_config=b"hidden_size: 8\n")
case("config_array", 3, "JSON object", raw_config=b"[]")
case("config_bom", 3, "config.json", raw_config=b"\xef\xbb\xbf" + json.dumps(BASE).encode())
case("config_utf16", 3, "config.json", raw_config=json.dumps(BASE).encode("utf-16"))
case("config_duplicate_key", 3, "hidden_size", raw_config=json.dumps(BASE).encode()[:-1] + b', "hidden_size": 16}')
case("config_deep", 3, "config.json", raw_config=b'{"model_type":' + b"[" * 5000)
case("config_nan_eps", 3, "NaN", raw_config=json.dumps(dict(BASE, rms_norm_eps=float("nan"))).encode())
case("config_infinity", 3, "Infinity", raw_config=json.dumps(dict(BASE, rope_theta=float("inf"))).encode())
case("config_huge_real", 3, "rope_theta", raw_config=json.dumps(BASE).replace("10000.0", "1e999").encode())
config("type_missing", "model_type", drop=["model_type"])
config("type_unknown", "gpt2", model_type="gpt2")
config("type_number", "model_type", model_type=3)
config("size_missing", "hidden_size", drop=["hidden_size"])
config("size_zero", "hidden_size", hidden_size=0)
config("size_negative", "hidden_size", hidden_size=-8)
config("size_2_40", "hidden_size", hidden_size=2**40)
config("size_2_70", "hidden_size", hidden_size=2**70)
config("size_string", "hidden_size", hidden_size="8")
config("size_real", "hidden_size", hidden_size=8.5)
config("size_bool", "hidden_size", hidden_size=True)
config("size_null", "hidden_size", hidden_size=None)
config("size_list", "hidden_size", hidden_size=[8])
config("ffn_zero", "intermediate_size", intermediate_size=0)
config("layers_zero", "num_hidden_layers", num_hidden_layers=0)
config("layers_huge", "num_hidden_layers", num_hidden_layers=100000)
config("vocab_zero", "vocab_size", vocab_size=0)
config("vocab_huge", "vocab_size", vocab_size=2**30)
config("heads_zero", "num_attention_heads", num_attention_heads=0)
config("heads_not_dividing", "num_attention_heads", num_attention_heads=3, num_key_value_heads=3)
config("kv_heads_zero", "num_key_value_heads", num_key_value_heads=0)
config("kv_heads_not_dividing", "num_key_value_heads", num_attention_heads=4, num_key_value_heads=3)
config("kv_heads_too_many", "num_key_value_heads", num_key_value_heads=4)
config("head_dim_odd", "head_dim", head_dim=3)
config("head_dim_huge", "head_dim", head_dim=2**29)
config("eps_zero", "rms_norm_eps", rms_norm_eps=0)
config("eps_negative", "rms_norm_eps", rms_norm_eps=-1e-5)
config("eps_string", "rms_norm_eps", rms_norm_eps="1e-5")
config("act_gelu", "gelu", hidden_act="gelu")
config("act_number", "hidden_act", hidden_act=1)
config("mlp_bias", "mlp_bias", mlp_bias=True)
config("tie_number", "tie_word_embeddings", tie_word_embeddings=1)
config("dtype_int8", "int8", torch_dtype="int8")
config("quantized", "quantization_config", quantization_config={"bits": 4})
config("positions_zero", "max_position_embeddings", max_position_embeddings=0)
config("eos_string", "eos_token_id", eos_token_id="</s>")
config("eos_many", "eos_token_id", eos_token_id=list(range(17)))
config("eos_nested", "eos_token_id", eos_token_id=[[1]])
config("bos_real", "bos_token_id", bos_token_id=1.5)
config("rope_zero", "rope_theta", rope_theta=0)
config("rope_yarn", "yarn", rope_scaling={"rope_type": "yarn", "factor": 4.0})
config("rope_dynamic", "dynamic", rope_scaling={"type": "dynamic", "factor": 2.0})
config("rope_llama3_incomplete", "low_freq_factor", rope_scaling={"rope_type": "llama3", "factor": 8.0})
config("rope_llama3_order", "high_freq_factor",
       rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 1.0})
config("rope_factor_zero", "factor", rope_scaling={"rope_type": "linear", "factor": 0})
config("rope_list", "rope_scaling", rope_scaling=["llama3"])
config("rope_per_layer", "rope_parameters", rope_parameters={"full_attention": {"rope_type": "default"}})
config("rope_partial", "partial_rotary_factor", partial_rotary_factor=0.5)
config("rope_partial_inside", "partial_rotary_factor", rope_parameters={"rope_type": "default", "partial_rotary_factor": 0.25})
QWEN = dict(BASE, model_type="qwen2", num_hidden_layers=2)
config("window_half", "sliding_window", QWEN, use_sliding_window=True, sliding_window=16, max_window_layers=1)
config("window_types_short", "layer_types", QWEN, layer_types=["full_attention"])
config("window_types_unknown", "chunked_attention", QWEN, layer_types=["full_attention", "chunked_attention"])
config("window_types_off", "layer_types", QWEN, layer_types=["sliding_attention"] * 2)
config("window_negative", "sliding_window", dict(BASE, model_type="mistral"), sliding_window=-1)

# ---- fla's attn and our member -----------------------------------------------------------------------------------------------
def attn(**kw):
    return dict(FLA["attn"], **kw)

config("attn_layers_missing", "attn.layers", FLA, attn={"num_heads": 2})
config("attn_layers_number", "attn.layers", FLA, attn=attn(layers=1))
config("attn_layers_negative", "attn.layers", FLA, attn=attn(layers=[-1]))
config("attn_layers_beyond", "attn.layers", FLA, attn=attn(layers=[3]))
config("attn_layers_twice", "twice", FLA, attn=attn(layers=[1, 1]))
config("attn_layers_bool", "attn.layers", FLA, attn=attn(layers=[True]))
config("attn_layers_real", "attn.layers", FLA, attn=attn(layers=[1.0]))
config("attn_heads_missing", "attn.num_heads", FLA, attn={"layers": [1]})
config("attn_heads_differ", "attn.num_heads", FLA, attn=attn(num_heads=4))
config("attn_two_specs", "attn", FLA, attn=[attn(), attn(layers=[2])])
config("attn_string", "attn", FLA, attn="all")
config("gdn_expand_v", "expand_v", FLA, drop=["expand_v"])
config("gdn_v_heads", "num_v_heads", FLA, num_v_heads=4)
config("gdn_neg_eigval", "allow_neg_eigval", FLA, allow_neg_eigval=True)
config("gdn_head_dim", "head_dim", FLA, head_dim=2)
config("gdn_conv_wide", "conv_size", FLA, use_short_conv=True, conv_size=9)
config("gdn_attnres", "attnres_block_size", FLA, attnres_block_size=2)
config("gla_expand_k", "expand_k", GLA, drop=["expand_k"])
config("gla_feature_map", "feature_map", GLA, feature_map="relu")
config("own_not_object", "hybridize", FLA, hybridize=1)
config("own_mixers_short", "hybridize.mixers", FLA, hybridize={"mixers": ["gdn_v4"]})
config("own_mixers_unknown", "mamba", FLA, hybridize={"mixers": ["gdn_v4", "softmax", "mamba"]})
config("own_mixers_contradict", "layer 0", FLA, hybridize={"mixers": ["softmax", "softmax", "gdn_v4"]})
config("own_family", "family", FLA, hybridize={"mixers": ["gdn_v4", "softmax", "gdn_v4"], "family": "x" * 100})
config("own_needed", "hybridize", FLA, model_type="hybridize")

# ---- weights ----------------------------------------------------------------------------------------------------------------
T = llama_tensors(BASE)
W = safetensors(T)


def weights(name, code, text, data, base=BASE):
    case(name, code, text, base, files={"model.safetensors": data} if isinstance(data, bytes) else data)


def without(*names):
    return {k: v for k, v in T.items() if k not in names}


weights("ok_llama", 0, "", W)
weights("ok_untied", 0, "", safetensors(dict(T, **{"lm_head.weight": [16, 8]})), dict(BASE, tie_word_embeddings=False))
weights("ok_only_head", 0, "", safetensors(dict(without("model.embed_tokens.weight"), **{"lm_head.weight": [16, 8]})))
weights("ok_head_equal", 0, "", safetensors(dict(T, **{"lm_head.weight": [16, 8]})))
weights("ok_inv_freq", 0, "", safetensors(dict(T, **{"model.layers.0.self_attn.rotary_emb.inv_freq": [2]})))
weights("weights_none", 4, "model.safetensors", {})
weights("weights_bin_only", 4, "safetensors", {"pytorch_model.bin": b"PK\3\4"})
weights("weights_empty", 3, "model.safetensors", b"")
weights("weights_short", 3, "model.safetensors", W[:5])
weights("weights_header_cut", 3, "model.safetensors", W[:60])
weights("weights_data_cut", 3, "model.safetensors", W[:-10])
weights("weights_tail", 3, "model.safetensors", W + b"MZ")
weights("weights_header_huge", 3, "model.safetensors", struct.pack("<Q", 2**62) + W[8:])
weights("weights_pickle", 3, "model.safetensors", b"\x80\x02}q\x00." + b"\0" * 64)
weights("tensor_missing", 3, "mlp.up_proj.weight", safetensors(without("model.layers.0.mlp.up_proj.weight")))
weights("tensor_no_embedding", 3, "embed_tokens", safetensors(without("model.embed_tokens.weight")))
weights("tensor_no_head", 3, "lm_head.weight", W, dict(BASE, tie_word_embeddings=False))
weights("tensor_extra", 3, "score.weight", safetensors(dict(T, **{"score.weight": [2, 8]})))
weights("tensor_extra_layer", 3, "model.layers.1", safetensors(llama_tensors(BASE, 2)))
weights("tensor_bias", 3, "_proj.bias", safetensors(llama_tensors(BASE, 1, True)))
weights("tensor_no_bias", 3, "q_proj.bias", W, dict(BASE, model_type="qwen2"))
weights("tensor_head_differs", 3, "lm_head.weight",
        safetensors(dict(T, **{"lm_head.weight": [16, 8]}), data={"lm_head.weight": numbers(128, 77)}))
weights("tensor_shape", 3, "got shape [8,12], expected [12,8]",
        safetensors(dict(T, **{"model.layers.0.mlp.gate_proj.weight": [8, 12]})))
weights("tensor_rank", 3, "shape [8,1]", safetensors(dict(T, **{"model.norm.weight": [8, 1]})))
weights("tensor_vocab", 3, "shape [16,8]", W, dict(BASE, vocab_size=17))
weights("tensor_ints", 3, "I64", safetensors(T, "I64"))
weights("tensor_both_names", 3, "model.embeddings.weight", safetensors(dict(T, **{"model.embeddings.weight": [16, 8]})))
weights("tensor_nan", 6, "element 3 is NaN", safetensors(T, data={"model.norm.weight": b"\0\0" * 3 + b"\xc0\x7f" + b"\0\0" * 4}))
weights("tensor_inf", 6, "element 0 is infinite", safetensors(T, data={"model.norm.weight": b"\x80\x7f" + b"\0\0" * 7}))

# ---- index and shards -------------------------------------------------------------------------------------------------------
A = {k: v for k, v in T.items() if "layers" in k}
B = {k: v for k, v in T.items() if "layers" not in k}
S1, S2 = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
MAP = {**{k: S1 for k in A}, **{k: S2 for k in B}}
BOTH = {S1: safetensors(A), S2: safetensors(B)}


def index(name, code, text, weight_map, files=BOTH, raw=None):
    data = raw if raw is not None else json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}).encode()
    weights(name, code, text, dict(files, **{"model.safetensors.index.json": data}))


index("ok_sharded", 0, "", MAP)
index("index_empty", 3, "index.json", MAP, raw=b"")
index("index_no_map", 3, "weight_map", MAP, raw=b"{}")
index("index_map_list", 3, "weight_map", list(MAP))
index("index_map_empty", 3, "weight_map", {})
index("index_value_number", 3, "model.norm.weight", dict(MAP, **{"model.norm.weight": 2}))
index("index_shard_missing", 4, "of-00002", MAP, {S1: BOTH[S1]})
index("index_parent", 3, "../", dict(MAP, **{"model.norm.weight": "../ok_llama/model.safetensors"}))
index("index_absolute", 3, "/etc/passwd", dict(MAP, **{"model.norm.weight": "/etc/passwd"}))
index("index_subdir", 3, "a/b.safetensors", dict(MAP, **{"model.norm.weight": "a/b.safetensors"}))
index("index_backslash", 3, "weight_map", dict(MAP, **{"model.norm.weight": "..\\b.safetensors"}))
index("index_nul", 3, "weight_map", dict(MAP, **{"model.norm.weight": S1 + "\0.safetensors"}))
index("index_hidden", 3, "weight_map", dict(MAP, **{"model.norm.weight": ".safetensors"}))
index("index_wrong_suffix", 3, "weight_map", dict(MAP, **{"model.norm.weight": "model.bin"}))
index("index_wrong_shard", 3, "model.norm.weight", dict(MAP, **{"model.norm.weight": S1}))
index("index_entry_without_tensor", 3, "ghost", dict(MAP, ghost=S1))
index("index_unlisted_tensor", 3, "model.norm.weight", {k: v for k, v in MAP.items() if k != "model.norm.weight"})
index("index_tensor_twice", 3, "model.norm.weight", MAP,
      {S1: safetensors(dict(A, **{"model.norm.weight": [8]})), S2: BOTH[S2]})
index("index_duplicate_key", 3, "model.norm.weight", MAP,
      raw=json.dumps({"weight_map": MAP}).encode()[:-2] + b', "model.norm.weight": "' + S1.encode() + b'"}}')
index("index_shard_broken", 3, "of-00002", MAP, {S1: BOTH[S1], S2: BOTH[S2][:-3]})

with open(os.path.join(HERE, "cases.txt"), "w") as f:
    f.write("\n".join(CASES) + "\n")
print(len(CASES), "cases")
