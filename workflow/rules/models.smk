# models: the mini models of the demo: those that come with medbench, for another seed or recipe pretrained here.
# REQUIRED INPUTS: none    OUTPUTS: results/models/{model}/


rule pretrain:
    input:
        get_inputs("pretrain"),
    output:
        get_outputs("pretrain"),
    log:
        get_log("pretrain"),
    priority: 2  # everything of a model waits for it
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=get_memory("pretrain"),
        runtime=get_runtime("pretrain"),
    params:
        rerun_key=get_rerun_key("pretrain"),
    shell:
        "python -m medbench pretrain {wildcards.model} > {log} 2>&1"
