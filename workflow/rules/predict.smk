# predict: the cell itself.
# REQUIRED INPUTS: results/data/, results/embeddings/ and results/prompts/ or the model, results/adapters/
# OUTPUTS: results/predictions/{dataset}/{model}/{mode}.parquet


rule predict:
    input:
        get_predict_input,
    output:
        paths.predictions("{dataset}", "{model}", "{mode}"),
    log:
        paths.log("predict", "{dataset}", "{model}", "{mode}"),
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=get_memory("predict", "dataset", "model", "mode"),
        runtime=get_runtime("predict", "dataset", "model", "mode"),
        gpu=get_gpus("predict", "dataset", "model", "mode"),
    params:
        tracked=get_params("predict", "dataset", "model", "mode"),
    shell:
        "python -m medbench predict {wildcards.dataset} {wildcards.model} {wildcards.mode} > {log} 2>&1"
