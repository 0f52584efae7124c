# data: official files -> checked tables.
# REQUIRED INPUTS: the files that a layout names    OUTPUTS: results/data/{dataset}/


rule prepare:
    input:
        get_index_files,
    output:
        paths.data("{dataset}"),
    params:
        tracked=get_params("prepare", "dataset"),
    log:
        paths.log("prepare", "{dataset}"),
    resources:
        mem_mb=2000,
        runtime=240,
    conda:
        "../envs/data.yaml"
    shell:
        "python -m medbench prepare {wildcards.dataset} --resolved {RESOLVED} > {log} 2>&1"
