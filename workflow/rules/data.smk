# data: official files -> checked tables.
# REQUIRED INPUTS: the files that a layout names    OUTPUTS: results/data/{dataset}/


rule prepare:
    input:
        get_index_files,
    output:
        paths.data("{dataset}"),
    log:
        paths.log("prepare", "{dataset}"),
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=2000,
        runtime=240,
    params:
        tracked=get_params("prepare", "dataset"),
    shell:
        "python -m medbench prepare {wildcards.dataset} > {log} 2>&1"
