#!/usr/bin/env python3
"""sass_table.py OBJECT [ARCH] - the kernels that matter as a Markdown table, read from the machine code that nvcc made: threads a block, registers,
shared memory, how many blocks and warps a multiprocessor of sm_90 holds, and how often an instruction stands in the kernel (not how often it runs).

    make CUDA_ARCHS=90 build/cuda/cuda_ops16.o && python3 tests/gpu/sass_table.py build/cuda/cuda_ops16.o >table.md

Needs cuobjdump and c++filt; cuobjdump comes with the CUDA Toolkit, or alone (pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm)."""
import re
import subprocess
import sys

# Dynamic shared memory is asked for by the host, so no cubin knows it: bytes of a launch at head size 128, as the emulator sees them.
DYNAMIC = {"flash_forward_mma_kernel<128, 1>": 69632, "flash_dkv_mma_kernel<128>": 70400, "flash_dq_mma_kernel<128, 2>": 104448,
           "flash_forward_wgmma_kernel<128>": 163912, "flash_dkv_wgmma_kernel<128>": 132648, "flash_dq_wgmma_kernel<128>": 131112,
           "attention_split_mma_kernel<128>": 82304,
           "gdn_prepare_mma_kernel<128, true>": 69632, "gdn_scan_mma_kernel<128>": 163360, "gdn_prepare_mma_kernel<128, false>": 69632,
           "gdn_serial_mma_kernel<128, 128>": 163360, "gdn_parallel_mma_kernel<128, 128>": 193536,
           "gla_prepare_mma_kernel<128>": 69632, "gla_scan_mma_kernel<128, false>": 124928, "gla_scan_mma_kernel<128, true>": 124928,
           "gla_parallel_mma_kernel<128>": 135680,
           "kda_prepare_mma_kernel<128, false>": 104448, "kda_scan_mma_kernel<128>": 160768, "kda_prepare_mma_kernel<128, true>": 104448,
           "kda_serial_mma_kernel<128>": 169984, "kda_parallel_mma_kernel<128>": 228864,
           "step_kernel<true, false>": 0, "step_kernel<false, true>": 0, "step_kernel<true, true>": 0}
ROWS = ("rmsnorm_forward_kernel<false>", "rmsnorm_forward_kernel<true>", "rmsnorm_backward_kernel", "swiglu_forward_kernel", "swiglu_backward_kernel", "rope_kernel",
        "conv_forward_run_kernel", "conv_backward_run_kernel", "delta_gate_forward_kernel", "kl_kernel", "xent_kernel", "adamw_kernel",
        "sum_blocks_kernel")
OPS = ("HMMA", "HGMMA", "LDSM", "LDS", "STS", "LDG", "LDGSTS", "UTMALDG", "STG", "MUFU", "BAR")
# Compute capability 9.0: registers are dealt out to warps 256 at a time, shared memory in pieces of 128 bytes, 1 KB a block is the system's.
FILE, WARPS, BLOCKS, SHARED, SYSTEM = 65536, 64, 32, 228 * 1024, 1024


def tool(*arguments):
    return subprocess.run(("cuobjdump", *arguments), check=True, capture_output=True, text=True).stdout


def plain(mangled):
    """Mangled names to `name<arguments>`."""
    names = subprocess.run(["c++filt"], input="\n".join(mangled), check=True, capture_output=True, text=True).stdout.splitlines()
    return {m: re.sub(r"^void |\(.*|\w+::", "", n) for m, n in zip(mangled, names)}


def kernels(path, arch):
    """{name: {"REG", "SHARED", "threads", "n", OPS...}}"""
    found = {}
    for name, registers, shared in re.findall(r"Function (\S+):\s+REG:(\d+) \S+ SHARED:(\d+)", tool("-arch", arch, "-res-usage", path)):
        found[name] = {"REG": int(registers), "SHARED": max(0, int(shared) - SYSTEM), "n": 0, "threads": 0, **dict.fromkeys(OPS + ("LDL", "STL"), 0)}
    for name, attributes in re.findall(r"^\.nv\.info\.(\S+)$(.*?)(?=^\.|\Z)", tool("-arch", arch, "-elf", path), re.M | re.S):
        most = re.search(r"EIATTR_MAX_THREADS\s.*\s.*Value:\s+0x(\w+) 0x(\w+) 0x(\w+)", attributes)
        if most and name in found:
            found[name]["threads"] = int(most[1], 16) * int(most[2], 16) * int(most[3], 16)
    at = None
    for line in tool("-arch", arch, "-sass", path).splitlines():
        function = re.search(r"Function : (\S+)", line)
        at = function.group(1) if function else at
        op = re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+ )?([A-Z0-9_]+)", line)
        if op and at in found:
            found[at]["n"] += 1
            name = {"LD": "LDG", "ST": "STG"}.get(op[1], op[1])  # an address whose space the compiler lost sight of
            if name in found[at]:
                found[at][name] += 1
    names = plain(list(found))
    return {names[m]: k for m, k in found.items()}


def held(threads, registers, shared):
    """Blocks of a multiprocessor."""
    warps = (threads + 31) // 32
    by_registers = FILE // (warps * ((registers * 32 + 255) // 256 * 256))
    by_shared = SHARED // ((shared + 127) // 128 * 128 + SYSTEM)
    return min(BLOCKS, WARPS // warps, by_registers, by_shared)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    all_of = kernels(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "sm_90a")
    print("| kernel | threads | registers | shared KB | blocks x warps | instructions | %s | spills | measured |" % " | ".join(OPS))
    print("|---|" + "---|" * (len(OPS) + 7))
    for name in list(DYNAMIC) + list(ROWS):
        k = all_of.get(name)
        if not k:
            sys.exit("sass_table: no kernel %s in %s" % (name, sys.argv[1]))
        shared = k["SHARED"] + DYNAMIC.get(name, 0)
        fit = "%d x %d" % (held(k["threads"], k["REG"], shared), (k["threads"] + 31) // 32) if k["threads"] else ""
        print("| `%s` | %s | %d | %.0f | %s | %d | %s | %d | |" % (name, k["threads"] or "", k["REG"], shared / 1024, fit, k["n"],
                                                                " | ".join(str(k[o] or "") for o in OPS), k["LDL"] + k["STL"]))


if __name__ == "__main__":
    main()
