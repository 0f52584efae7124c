# calibrate, judge: open answers -> what language models make of them, in a run that names judges.
# REQUIRED INPUTS: results/predictions/, results/data/    OUTPUTS: results/calibration/, results/judgements/


rule calibrate:
    input:
        get_inputs("calibrate"),
    output:
        get_outputs("calibrate"),
    log:
        get_log("calibrate"),
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=get_memory("calibrate"),
        runtime=get_runtime("calibrate"),
        gpu=get_gpus("calibrate"),
    params:
        rerun_key=get_rerun_key("calibrate"),
    shell:
        "python -m medbench calibrate {wildcards.model} > {log} 2>&1"


rule judge:
    input:
        get_inputs("judge"),
    output:
        get_outputs("judge"),
    log:
        get_log("judge"),
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=get_memory("judge"),
        runtime=get_runtime("judge"),
        gpu=get_gpus("judge"),
    params:
        rerun_key=get_rerun_key("judge"),
    shell:
        "python -m medbench judge {wildcards.dataset} {wildcards.model} {wildcards.mode} > {log} 2>&1"
