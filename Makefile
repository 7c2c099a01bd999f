# What a newcomer runs. Settings come from the environment: SLUICE_NAME, SLUICE_PORT, SLUICE_GATEWAY_PORT, SLUICE_DATA, … (README.md)
.PHONY: help demo demo-spring up down env images test test-full test-spring check snapshot venv soak

help:    ## what there is
	@sed -n 's/^\([a-z-]*\): *## /make \1	/p' Makefile | expand -t 20

demo:    ## from nothing: everything installed and started, then deployments under load, counted
	@scripts/demo.sh
demo-spring:  ## the same with Spring Boot behind Spring Cloud Gateway, by each of three registries
	@scripts/demo-spring.sh
up:      ## Sluice and its gateway as containers, or brought up to date
	@scripts/up.sh
down:    ## all that up and demo made, removed
	@scripts/down.sh
env:     ## eval "$(make -s env)" tells this shell where Sluice is
	@scripts/env.sh
images:  ## the images of Sluice, the gateway and the sample
	@scripts/images.sh
test:    ## what CI runs, at most 18 minutes: every story on real parts at least once, all set up by itself (tests/README.md)
	@scripts/test.sh
test-full: ## every test, every history, every outage, and ten minutes of soak
	@SLUICE_TIER=full scripts/test.sh
	@scripts/soak.sh
test-spring: ## of it, the real Spring Boot applications: redeployed through Spring Cloud Gateway, by each registry
	@SLUICE_TIER=full scripts/test.sh -m spring
check:   ## the quick part: lint, format, types, import rules, known vulnerabilities, and the tests that need no engine
	@scripts/check.sh
snapshot: ## the files that pin the public contract (tests/contract/snapshot/), written from the code
	@.venv/bin/python -m tests.contract.surface >/dev/null
venv:    ## the virtual environment, exactly as locked
	@scripts/venv.sh
soak:    ## changes and breakage at random under load, all checked after every act: MINUTES=10 SEED= RATE=40
	@scripts/soak.sh
