.PHONY: venv

venv:
	@scripts/venv.sh
