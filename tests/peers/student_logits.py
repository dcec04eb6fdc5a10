#!/usr/bin/env python3
"""The official code's two layouts. Its Python is not needed: a student is fla's model class whose linear layers' output norm has eps 1e-5.
1. `hybridize export --format student` of a student whose other norms have eps 1e-6 (Qwen2), its config.json rewritten for fla's
   class, o_norm.eps set to 1e-5: the same logits as ours, from the run's directory and from the exported one read back.
2. A random Llama of transformers with its tensors renamed as the official convert scripts do (model_type "transformer"): our logits of that
   directory are transformers' of the original.

    make && VENV/bin/python tests/peers/student_logits.py        # VENV as in fla_logits.py; on a CPU the same leaves are replaced
"""
import json, os, subprocess, sys, tempfile
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import torch
from safetensors.torch import save_file
import students
from fla_logits import replace_leaves

IDS = torch.randint(0, 101, (90,), generator=torch.Generator().manual_seed(3)).tolist()


def edit(path, **members):
    c = json.load(open(os.path.join(path, "config.json")))
    json.dump({**c, **members}, open(os.path.join(path, "config.json"), "w"))
    return c


def student(tool, tmp, kind, norm):
    import fla
    from transformers import AutoModelForCausalLM
    path, out = os.path.join(tmp, kind), os.path.join(tmp, kind + "-student")
    students.make(path, kind=kind, bias=True, eps=1e-6)
    softmax = [1, 3]
    edit(path, hybridize=dict(version=1, family="qwen2", head_dim=16, num_key_value_heads=2, qkv_bias=True, o_norm_eps=1e-5,
                              mixers=["softmax" if l in softmax else kind for l in range(4)]))
    subprocess.run(["./hybridize", "export", "--format", "student", "-m", path, "-o", out, "--dtype", "f32"], check=True)
    first, second = students.logits(tool, path, IDS), students.logits(tool, out, IDS)
    c = edit(out)
    assert c["model_type"] == "student" and c["student_name"] == kind and c["keep_full_attention_layers"] == softmax
    edit(out, num_kv_heads=None, model_type="gla" if kind == "gla_v1" else "gated_deltanet", head_dim=16, expand_v=1, expand_k=1, use_short_conv=kind in ("gdn_v1", "gdn_v3"),
         attn=dict(layers=softmax, num_heads=4, num_kv_heads=2, qkv_bias=True, rope_theta=c["rope_theta"]))
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    for l, layer in enumerate(model.model.layers):
        if l not in softmax:
            getattr(layer.attn, norm).eps = 1e-5
    with torch.no_grad():
        want = model(torch.tensor([IDS]), use_cache=False).logits[0].double()
    return students.report(f"student {kind}, the run's directory", first, want) & students.report(f"student {kind}, read back", second, want)


def transformer(tool, tmp):
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(2)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=101, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
                                         num_key_value_heads=2, rms_norm_eps=1e-5)).double().eval()
    path = os.path.join(tmp, "transformer")
    os.makedirs(path)
    names = {"embed_tokens": "embeddings", "input_layernorm": "attn_norm", "post_attention_layernorm": "mlp_norm", "self_attn": "attn"}
    t = {".".join(names.get(p, p) for p in k.split(".")): v.float().contiguous() for k, v in model.state_dict().items()}
    save_file(t, os.path.join(path, "model.safetensors"), metadata={"format": "pt"})
    json.dump(dict(model_type="transformer", hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_heads=4, num_kv_heads=2, qkv_bias=False,
                   qk_norm=False, window_size=None, rope_theta=10000.0, norm_eps=1e-5, hidden_act="swish", vocab_size=101,
                   tie_word_embeddings=False), open(os.path.join(path, "config.json"), "w"))
    model.load_state_dict({k: v.float().double() for k, v in model.state_dict().items()})
    with torch.no_grad():
        want = model(torch.tensor([IDS])).logits[0]
    return students.report("transformer", students.logits(tool, path, IDS), want)


def main():
    replace_leaves()
    with tempfile.TemporaryDirectory() as tmp:
        tool = students.build_tool(tmp)
        good = transformer(tool, tmp) & student(tool, tmp, "gdn_v4", "o_norm") & student(tool, tmp, "gla_v1", "g_norm_swish_gate")
    return 0 if good else 1


sys.exit(main())
