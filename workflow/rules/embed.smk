# embed: images and class prompts -> embeddings, once per model and data set.
# REQUIRED INPUTS: results/data/{dataset}/    OUTPUTS: results/embeddings/, results/prompts/


rule embed:
    input:
        images=paths.images("{dataset}"),
        checkpoint=get_checkpoint,
    output:
        paths.embeddings("{dataset}", "{model}"),
    log:
        paths.log("embed", "{dataset}", "{model}"),
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=3000,
        runtime=240,
        gpu=get_gpus("embed", "dataset", "model"),
    params:
        tracked=get_params("embed", "dataset", "model"),
    shell:
        "python -m medbench embed {wildcards.dataset} {wildcards.model} > {log} 2>&1"


rule prompts:
    input:
        checkpoint=get_checkpoint,
    output:
        paths.prompts("{dataset}", "{model}"),
    log:
        paths.log("prompts", "{dataset}", "{model}"),
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=3000,
        runtime=30,
    params:
        tracked=get_params("prompts", "dataset", "model"),
    shell:
        "python -m medbench prompts {wildcards.dataset} {wildcards.model} > {log} 2>&1"
