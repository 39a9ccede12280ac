def add_pages(app, document): return None
