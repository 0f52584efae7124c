# embed: images and class prompts -> embeddings, once per model and data set.
# REQUIRED INPUTS: results/data/{dataset}/    OUTPUTS: results/embeddings/, results/prompts/


rule embed:
    input:
        images=paths.images("{dataset}"),
        checkpoint=get_checkpoint,
    output:
        paths.embeddings("{dataset}", "{model}"),
    params:
        tracked=get_params("embed", "dataset", "model"),
    log:
        paths.log("embed", "{dataset}", "{model}"),
    resources:
        mem_mb=3000,
        runtime=240,
        gpu=get_gpus,
    conda:
        "../envs/model.yaml"
    shell:
        "python -m medbench embed {wildcards.dataset} {wildcards.model} --resolved {RESOLVED} > {log} 2>&1"


rule prompts:
    input:
        checkpoint=get_checkpoint,
    output:
        paths.prompts("{dataset}", "{model}"),
    params:
        tracked=get_params("prompts", "dataset", "model"),
    log:
        paths.log("prompts", "{dataset}", "{model}"),
    resources:
        mem_mb=3000,
        runtime=30,
    conda:
        "../envs/model.yaml"
    shell:
        "python -m medbench prompts {wildcards.dataset} {wildcards.model} --resolved {RESOLVED} > {log} 2>&1"
