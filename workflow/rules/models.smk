# models: the mini models of the demo, pretrained by the workflow itself.
# REQUIRED INPUTS: none    OUTPUTS: results/models/{model}/


rule pretrain:
    output:
        directory(paths.model_folder("{model}")),
    params:
        tracked=get_params("pretrain", "model"),
    log:
        paths.log("pretrain", "{model}"),
    resources:
        mem_mb=3000,
        runtime=30,
    conda:
        "../envs/model.yaml"
    shell:
        "python -m medbench pretrain {wildcards.model} --resolved {RESOLVED} > {log} 2>&1"
