# score, duplicates, interval: answers and scores -> metrics with intervals, without a model.
# REQUIRED INPUTS: results/predictions/, results/data/    OUTPUTS: results/scores/, results/duplicates/, results/intervals/


rule score:
    input:
        get_inputs("score"),
    output:
        get_outputs("score"),
    log:
        get_log("score"),
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=get_memory("score"),
        runtime=get_runtime("score"),
    params:
        rerun_key=get_rerun_key("score"),
    shell:
        "python -m medbench score {wildcards.dataset} {wildcards.model} {wildcards.mode} --fingerprint {params.rerun_key:q} > {log} 2>&1"


rule duplicates:
    input:
        get_inputs("duplicates"),
    output:
        get_outputs("duplicates"),
    log:
        get_log("duplicates"),
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=get_memory("duplicates"),
        runtime=get_runtime("duplicates"),
    params:
        rerun_key=get_rerun_key("duplicates"),
    shell:
        "python -m medbench duplicates {wildcards.dataset} --fingerprint {params.rerun_key:q} > {log} 2>&1"


rule interval:
    input:
        get_inputs("interval"),
    output:
        get_outputs("interval"),
    log:
        get_log("interval"),
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=get_memory("interval"),
        runtime=get_runtime("interval"),
    params:
        rerun_key=get_rerun_key("interval"),
    shell:
        "python -m medbench interval {wildcards.dataset} {wildcards.model} {wildcards.mode} --fingerprint {params.rerun_key:q} > {log} 2>&1"
