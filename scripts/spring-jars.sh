#!/usr/bin/env bash
# Builds the jars of samples/spring; installs a JDK and Maven if they are missing.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

command -v javac >/dev/null && command -v mvn >/dev/null || apt_install default-jdk-headless maven
say "building the jars of samples/spring"
cd samples/spring
mvn --quiet --batch-mode -DskipTests package >&2
