# predict: the cell itself.
# REQUIRED INPUTS: results/data/, results/embeddings/ and results/prompts/ or the model, results/adapters/
# OUTPUTS: results/predictions/{dataset}/{model}/{mode}.parquet


rule predict:
    input:
        get_inputs("predict"),
    output:
        get_outputs("predict"),
    log:
        get_log("predict"),
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=get_memory("predict"),
        runtime=get_runtime("predict"),
        gpu=get_gpus("predict"),
    params:
        rerun_key=get_rerun_key("predict"),
    shell:
        "python -m medbench predict {wildcards.dataset} {wildcards.model} {wildcards.mode} > {log} 2>&1"
