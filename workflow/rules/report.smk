# report: tables, figures and the page.
# REQUIRED INPUTS: everything of the run    OUTPUTS: results/report/{run}/


rule report:
    input:
        intervals=[paths.intervals(*cell) for cell in CELLS],
        data=get_run_data,
        gaps=paths.gaps("{run}"),
        ledger=paths.ledger("{run}"),
    output:
        page=paths.report("{run}") / "index.html",
    params:
        tracked=get_params("report", "run"),
    log:
        paths.log("report", "{run}"),
    resources:
        mem_mb=2000,
        runtime=60,
    conda:
        "../envs/report.yaml"
    shell:
        "python -m medbench report {wildcards.run} --resolved {RESOLVED} > {log} 2>&1"
