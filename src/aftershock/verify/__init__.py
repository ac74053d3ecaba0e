"""How an answer is judged. Import from the modules: workers load `verdict` and `worker` alone, so this stays empty."""
