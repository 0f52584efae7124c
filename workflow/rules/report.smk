# report: tables, figures and the page.
# REQUIRED INPUTS: everything of the run    OUTPUTS: results/report/{run}/


rule report:
    input:
        get_inputs("report"),
    output:
        get_outputs("report"),
    log:
        get_log("report"),
    conda:
        "../envs/report.yaml"
    resources:
        mem_mb=get_memory("report"),
        runtime=get_runtime("report"),
    params:
        rerun_key=get_rerun_key("report"),
    shell:
        "python -m medbench report {wildcards.run} > {log} 2>&1"
