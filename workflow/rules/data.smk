# fetch, prepare: official files onto the disk -> checked tables.
# REQUIRED INPUTS: the files that a layout names    OUTPUTS: results/raw/, results/data/{dataset}/


localrules:
    fetch,  # compute nodes of a cluster often have no network


rule fetch:
    output:
        paths.fetched("{dataset}"),
    log:
        paths.log("fetch", "{dataset}"),
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=1000,
        runtime=720,
    params:
        tracked=get_params("fetch", "dataset"),
    shell:
        "python -m medbench fetch {wildcards.dataset} > {log} 2>&1"


rule prepare:
    input:
        get_index_files,
    output:
        paths.data("{dataset}"),
    log:
        paths.log("prepare", "{dataset}"),
    priority: 3  # everything of a data set waits for it
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=2000,
        runtime=240,
    params:
        tracked=get_params("prepare", "dataset"),
    shell:
        "python -m medbench prepare {wildcards.dataset} > {log} 2>&1"
