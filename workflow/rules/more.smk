# Stages without a rule of their own above: each gets one from its declaration.
# REQUIRED INPUTS: what the stage reads    OUTPUTS: what it writes


for STAGE_NAME in [name for name in stages.STAGES if name not in {rule.name for rule in workflow.rules} and not NOW]:

    rule:
        name:
            STAGE_NAME
        input:
            get_inputs(STAGE_NAME),
        output:
            get_outputs(STAGE_NAME),
        log:
            get_log(STAGE_NAME),
        conda:
            "../envs/model.yaml"
        resources:
            mem_mb=get_memory(STAGE_NAME),
            runtime=get_runtime(STAGE_NAME),
            gpu=get_gpus(STAGE_NAME),
        params:
            stage=STAGE_NAME,
            names=get_words(STAGE_NAME),
            rerun_key=get_rerun_key(STAGE_NAME),
        shell:
            "python -m medbench {params.stage} {params.names} > {log} 2>&1"
