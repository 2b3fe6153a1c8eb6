-- The database of a library, as another program has made it.
CREATE TABLE books (
  branch TEXT NOT NULL,
  isbn TEXT NOT NULL,
  title TEXT NOT NULL,
  author TEXT NOT NULL,
  year INTEGER,
  copies INTEGER NOT NULL DEFAULT 1,
  PRIMARY KEY (branch, isbn)
);
CREATE TABLE members (number INTEGER PRIMARY KEY, name TEXT NOT NULL, since INTEGER NOT NULL);
INSERT INTO books VALUES
  ('default', '978-0141439518', 'Pride and Prejudice', 'Jane Austen', 1813, 3),
  ('default', '978-0486282114', 'Frankenstein', 'Mary Shelley', 1818, 1),
  ('harbour', '978-0142437247', 'Moby-Dick', 'Herman Melville', 1851, 2);
INSERT INTO members VALUES (1, 'A. Reader', 2019), (2, 'B. Reader', 2024);
