# report: tables, figures and the page.
# REQUIRED INPUTS: everything of the run    OUTPUTS: results/report/{run}/


rule report:
    input:
        intervals=[paths.intervals(*cell) for cell in CELLS],
        data=get_run_data,
        twins=get_run_twins,
        gaps=paths.gaps("{run}"),
        ledger=paths.ledger("{run}"),
    output:
        page=paths.report("{run}") / "index.html",
        answer=paths.answer("{run}"),
    log:
        paths.log("report", "{run}"),
    conda:
        "../envs/report.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        tracked=get_params("report", "run"),
    shell:
        "python -m medbench report {wildcards.run} > {log} 2>&1"
