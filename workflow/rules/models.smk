# models: the mini models of the demo: those that come with medbench, for another seed or recipe pretrained here.
# REQUIRED INPUTS: none    OUTPUTS: results/models/{model}/


rule pretrain:
    output:
        directory(paths.model_folder("{model}")),
    log:
        paths.log("pretrain", "{model}"),
    priority: 2  # everything of a model waits for it
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=3000,
        runtime=30,
    params:
        tracked=get_params("pretrain", "model"),
    shell:
        "python -m medbench pretrain {wildcards.model} > {log} 2>&1"
