#!/usr/bin/env python3
"""Checks a workflow of GitHub Actions, which nothing here can run: its syntax and what it has to say.

    packaging/workflow.py [FILE]

Every job names a runner and has steps; every step is an action or a script that bash reads; the release
is made by packaging/release for amd64 and arm64, and what it makes is attached. Needs PyYAML.
"""

import os
import re
import subprocess
import sys

import yaml

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FILE = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, ".github/workflows/release.yml")


class Strict(yaml.SafeLoader):
    """Refuses a key that comes twice: YAML forbids it, and the loader would take the last one."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {str(key) for key in keys if keys.count(key) > 1}
        need(not twice, "line %d: %s comes twice" % (node.start_mark.line + 1, ", ".join(twice)))
        return super().construct_mapping(node, deep)


def need(holds, what):
    if not holds:
        sys.exit("%s: %s" % (os.path.relpath(FILE), what))


def check_step(job, number, step):
    where = "job %s, step %d" % (job, number)
    need(isinstance(step, dict), "%s is not a mapping" % where)
    need(("uses" in step) != ("run" in step), "%s has `uses` or `run`, and not both" % where)
    known = {"name", "id", "if", "env", "uses", "with", "run", "shell", "working-directory", "continue-on-error", "timeout-minutes"}
    need(set(step) <= known, "%s: unknown key %s" % (where, sorted(set(step) - known)))
    if "uses" in step:
        need(re.fullmatch(r"[\w.-]+/[\w./-]+@[\w.-]+", step["uses"]), "%s: `uses` is OWNER/ACTION@VERSION" % where)
        return
    # What the forge puts in place of an expression is a word.
    script = re.sub(r"\$\{\{.*?\}\}", "word", step["run"])
    read = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    need(read.returncode == 0, "%s: bash does not read it: %s" % (where, read.stderr.strip()))
    for program in re.findall(r"^\s*(packaging/\S+)", script, re.M):
        need(os.access(os.path.join(ROOT, program), os.X_OK), "%s: %s is not a program of the tree" % (where, program))


def main():
    with open(FILE) as file:
        try:
            workflow = yaml.load(file, Strict)
        except yaml.YAMLError as error:
            need(False, "not YAML: %s" % error)
    need(isinstance(workflow, dict), "not a mapping")
    # YAML 1.1 reads the word `on` as true.
    triggers = workflow.get("on", workflow.get(True))
    need(isinstance(triggers, dict) and triggers.get("push", {}).get("tags"), "`on.push.tags` says when it runs")
    need(workflow.get("permissions"), "`permissions` are named")
    jobs = workflow.get("jobs")
    need(isinstance(jobs, dict) and jobs, "no jobs")
    runners, uses, scripts = set(), [], ""
    for name, job in jobs.items():
        need(isinstance(job, dict) and job.get("runs-on"), "job %s: `runs-on` is missing" % name)
        need(isinstance(job.get("steps"), list) and job["steps"], "job %s has no steps" % name)
        needed = job.get("needs", [])
        for other in [needed] if isinstance(needed, str) else needed:
            need(other in jobs, "job %s needs %s, which is not there" % (name, other))
        for number, step in enumerate(job["steps"], 1):
            check_step(name, number, step)
            uses.append(step.get("uses", ""))
            scripts += step.get("run", "")
        matrix = job.get("strategy", {}).get("matrix", {}).get("include", [])
        if "packaging/release" in str(job["steps"]):
            runners |= {row.get("arch") for row in matrix if row.get("runner")}
            need("matrix.runner" in str(job["runs-on"]), "job %s: `runs-on` takes the runner of the matrix" % name)
    need(runners == {"amd64", "arm64"}, "packaging/release runs on amd64 and arm64, not on %s" % sorted(runners))
    need(any(action.startswith("actions/upload-artifact@") for action in uses), "nothing is kept of what was made")
    need("gh release create" in scripts, "no release is made of it")
    print("%s: %d jobs, as they have to be" % (os.path.relpath(FILE), len(jobs)))


main()
