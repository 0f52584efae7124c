# score, twins, interval: answers and scores -> metrics with intervals, without a model.
# REQUIRED INPUTS: results/predictions/, results/data/    OUTPUTS: results/scores/, results/twins/, results/intervals/


rule score:
    input:
        paths.predictions("{dataset}", "{model}", "{mode}"),
    output:
        paths.scores("{dataset}", "{model}", "{mode}"),
    log:
        paths.log("score", "{dataset}", "{model}", "{mode}"),
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        tracked=get_params("score", "dataset", "model", "mode"),
    shell:
        "python -m medbench score {wildcards.dataset} {wildcards.model} {wildcards.mode} --tracked {params.tracked:q} > {log} 2>&1"


rule twins:
    input:
        [paths.samples("{dataset}", split) for split in paths.SPLITS],
        paths.images("{dataset}"),
    output:
        paths.twins("{dataset}"),
    log:
        paths.log("twins", "{dataset}"),
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        tracked=get_params("twins", "dataset"),
    shell:
        "python -m medbench twins {wildcards.dataset} --tracked {params.tracked:q} > {log} 2>&1"


rule interval:
    input:
        get_interval_input,
    output:
        paths.intervals("{dataset}", "{model}", "{mode}"),
    log:
        paths.log("interval", "{dataset}", "{model}", "{mode}"),
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        tracked=get_params("interval", "dataset", "model", "mode"),
    shell:
        "python -m medbench interval {wildcards.dataset} {wildcards.model} {wildcards.mode} --tracked {params.tracked:q} > {log} 2>&1"
