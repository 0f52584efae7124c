# adapt: linear probes and LoRA, each with its certificate; the weights of LoRA in PEFT's layout.
# REQUIRED INPUTS: results/data/ or results/embeddings/    OUTPUTS: results/adapters/{dataset}/{model}/{mode}/


rule adapt:
    input:
        get_inputs("adapt"),
    output:
        get_outputs("adapt"),
    log:
        get_log("adapt"),
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=get_memory("adapt"),
        runtime=get_runtime("adapt"),
        gpu=get_gpus("adapt"),
    params:
        rerun_key=get_rerun_key("adapt"),
    shell:
        "python -m medbench adapt {wildcards.dataset} {wildcards.model} {wildcards.mode} > {log} 2>&1"
