# embed: images and class prompts -> embeddings, once per model and data set.
# REQUIRED INPUTS: results/data/{dataset}/    OUTPUTS: results/embeddings/, results/prompts/


rule embed:
    input:
        get_inputs("embed"),
    output:
        get_outputs("embed"),
    log:
        get_log("embed"),
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=get_memory("embed"),
        runtime=get_runtime("embed"),
        gpu=get_gpus("embed"),
    params:
        rerun_key=get_rerun_key("embed"),
    shell:
        "python -m medbench embed {wildcards.dataset} {wildcards.model} > {log} 2>&1"


rule prompts:
    input:
        get_inputs("prompts"),
    output:
        get_outputs("prompts"),
    log:
        get_log("prompts"),
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=get_memory("prompts"),
        runtime=get_runtime("prompts"),
    params:
        rerun_key=get_rerun_key("prompts"),
    shell:
        "python -m medbench prompts {wildcards.dataset} {wildcards.model} > {log} 2>&1"
